//! The terminal: opened, restored whatever happens, drawn on only when something changed.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use crossterm::event;
use crossterm::terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate};
use ratatui::DefaultTerminal;

use super::model::Model;
use super::update::{Flow, Msg, update};
use super::view;
use crate::failure::Failure;

/// At most ten frames a second.
const FRAME: Duration = Duration::from_millis(100);
/// How often time alone may change the picture.
const TICK: Duration = Duration::from_millis(500);
/// How soon the reader of keys notices that it is no longer wanted.
const INPUT_POLL: Duration = Duration::from_millis(200);

/// Shows `model` until it quits. The terminal is restored on return, on a panic, and on SIGTERM and SIGHUP,
/// which arrive as [`Msg::Quit`].
pub fn run(
    model: &mut Model,
    inbox: &Receiver<Msg>,
    outbox: &SyncSender<Msg>,
) -> Result<(), Failure> {
    // Sets a panic hook that restores the terminal before the message is printed.
    let mut terminal =
        ratatui::try_init().map_err(|e| Failure::doing("cannot take over the terminal", e))?;
    let _restore = Restore;
    let _keys = Keys::read_into(outbox.clone())?;
    events(model, inbox, &mut terminal)
}

struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // After SIGHUP the terminal may have gone; there is nobody left to tell.
        let _ = ratatui::try_restore();
    }
}

fn events(
    model: &mut Model,
    inbox: &Receiver<Msg>,
    terminal: &mut DefaultTerminal,
) -> Result<(), Failure> {
    let started = Instant::now() - model.now;
    let mut dirty = true;
    let mut drawn = started;
    loop {
        let wait = if dirty { FRAME.saturating_sub(drawn.elapsed()) } else { TICK };
        let mut msg = match inbox.recv_timeout(wait) {
            Ok(msg) => Some(msg),
            Err(RecvTimeoutError::Timeout) => Some(Msg::Tick),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // All that has come goes into one frame.
        while let Some(next) = msg {
            match update(model, next, started.elapsed()) {
                Flow::Quit => return Ok(()),
                Flow::Draw => dirty = true,
                Flow::Rest => {}
            }
            msg = inbox.try_recv().ok();
        }
        if dirty && drawn.elapsed() >= FRAME {
            draw(model, terminal).map_err(|e| Failure::doing("cannot draw on the terminal", e))?;
            (dirty, drawn) = (false, Instant::now());
        }
    }
}

/// One frame, shown by the terminal as a whole.
fn draw(model: &Model, terminal: &mut DefaultTerminal) -> io::Result<()> {
    crossterm::queue!(io::stdout(), BeginSynchronizedUpdate)?;
    terminal.draw(|frame| view::view(model, frame))?;
    crossterm::queue!(io::stdout(), EndSynchronizedUpdate)?;
    io::stdout().flush()
}

/// The thread that waits for keys; ends with this value.
struct Keys {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Keys {
    fn read_into(outbox: SyncSender<Msg>) -> Result<Keys, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let read = move || {
            while !stopped.load(Ordering::Relaxed) {
                let msg = match event::poll(INPUT_POLL) {
                    Ok(false) => continue,
                    Ok(true) => event::read().map_or(Msg::Quit, Msg::Input),
                    Err(_) => Msg::Quit,
                };
                let last = matches!(msg, Msg::Quit);
                if outbox.send(msg).is_err() || last {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("keys".into())
            .spawn(read)
            .map_err(|e| Failure::doing("cannot start a thread", e))?;
        Ok(Keys { stop, thread: Some(thread) })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It may wait for room in the queue, which nobody reads any more: it is not waited for then.
        if let Some(thread) = self.thread.take().filter(thread::JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}
