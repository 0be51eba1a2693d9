//! What the controlling thread tells all workers.

use tokio::sync::watch;

use super::goal::Goal;

/// How far production is to be ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Halt {
    /// Not at all: the plan says when it ends.
    #[default]
    No,
    /// Send nothing more; wait for the answers to what was sent.
    Cut,
    /// Do not wait for answers either.
    Abandon,
}

/// What a worker listens to. The channels close only with the controlling thread.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Begin: the plan says when.
    pub begin: watch::Receiver<bool>,
    /// Whether to go on.
    pub stop: watch::Receiver<Halt>,
    /// Read up to here. Marked as changed also when a time of the plan has become known that readers wait
    /// for.
    pub goal: watch::Receiver<Goal>,
}

/// The other end.
#[derive(Debug)]
pub struct Command {
    begin: watch::Sender<bool>,
    stop: watch::Sender<Halt>,
    goal: watch::Sender<Goal>,
}

impl Command {
    /// Nothing ordered yet.
    pub fn new() -> Command {
        Command {
            begin: watch::Sender::new(false),
            stop: watch::Sender::new(Halt::No),
            goal: watch::Sender::new(Goal::Open),
        }
    }

    /// For a worker.
    pub fn orders(&self) -> Orders {
        Orders {
            begin: self.begin.subscribe(),
            stop: self.stop.subscribe(),
            goal: self.goal.subscribe(),
        }
    }

    /// Begins.
    pub fn begin(&self) {
        self.begin.send_replace(true);
    }

    /// Ends production at least so far.
    pub fn halt(&self, halt: Halt) {
        self.stop.send_if_modified(|now| {
            let further = halt > *now;
            *now = halt.max(*now);
            further
        });
    }

    /// Makes readers look at the times of the plan again.
    pub fn recall(&self) {
        self.goal.send_modify(|_| ());
    }

    /// Tells readers where to end, unless they have been told to end where they are.
    pub fn goal(&self, goal: Goal) {
        self.goal.send_if_modified(|now| {
            let open = !matches!(now, Goal::Here);
            if open {
                *now = goal;
            }
            open
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_never_softened() {
        let command = Command::new();
        let orders = command.orders();
        command.halt(Halt::Abandon);
        command.halt(Halt::Cut);
        assert_eq!(*orders.stop.borrow(), Halt::Abandon);
        command.goal(Goal::Here);
        command.goal(Goal::Open);
        assert!(matches!(*orders.goal.borrow(), Goal::Here));
    }

    #[test]
    fn a_recall_is_noticed_and_changes_nothing() {
        let command = Command::new();
        let mut orders = command.orders();
        command.recall();
        assert!(orders.goal.has_changed().unwrap());
        assert!(matches!(*orders.goal.borrow_and_update(), Goal::Open));
    }
}
