//! The terminal: opened, restored whatever happens, drawn on only when something changed.

use std::io::{self, BufWriter, Stdout, Write as _, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use crossterm::cursor::Show;
use crossterm::event::{self, DisableMouseCapture, EnableMouseCapture};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;

use super::app::App;
use super::source::Asker;
use super::update::{Flow, Msg, update};
use super::view;
use crate::failure::Failure;

/// At most ten frames a second.
const FRAME: Duration = Duration::from_millis(100);
/// How often time alone may change the picture.
const TICK: Duration = Duration::from_millis(500);
/// How soon the reader of keys notices that it is no longer wanted.
const INPUT_POLL: Duration = Duration::from_millis(200);

/// A frame goes out in one write.
type Screen = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// Shows `app` until it quits. The terminal is restored on return, on a panic of any thread, and on SIGTERM and
/// SIGHUP, which arrive as [`Msg::Quit`].
pub fn run(
    app: &mut App,
    mouse: bool,
    inbox: &Receiver<Msg>,
    outbox: &SyncSender<Msg>,
    asker: Option<&Asker>,
) -> Result<(), Failure> {
    let cannot = |e| Failure::doing("cannot take over the terminal", e);
    let restore = Restore::on_drop_and_panic();
    enable_raw_mode().map_err(cannot)?;
    crossterm::execute!(stdout(), EnterAlternateScreen).map_err(cannot)?;
    if mouse {
        crossterm::execute!(stdout(), EnableMouseCapture).map_err(cannot)?;
    }
    // Whether there are colours is decided by the theme; nobody else is to take them away.
    crossterm::style::force_color_output(true);
    let out = BufWriter::with_capacity(64 << 10, stdout());
    let mut terminal = Terminal::new(CrosstermBackend::new(out)).map_err(cannot)?;
    let _keys = Keys::read_into(outbox.clone())?;
    events(app, inbox, asker, &restore, &mut terminal)
}

/// Restores the terminal when dropped, or at a panic before; once, for leaving the alternate screen again would put the
/// cursor back on top of the panic's message.
struct Restore {
    done: Arc<AtomicBool>,
}

impl Restore {
    fn on_drop_and_panic() -> Restore {
        let inner = std::panic::take_hook();
        let done = Arc::new(AtomicBool::new(false));
        let by_panic = Restore { done: Arc::clone(&done) };
        // First the terminal, so that the message can be read.
        std::panic::set_hook(Box::new(move |info| {
            by_panic.restore();
            inner(info);
        }));
        Restore { done }
    }

    fn restore(&self) {
        if !self.done.swap(true, Ordering::Relaxed) {
            restore();
        }
    }

    /// Whether the terminal was given back: another thread has panicked.
    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Best effort: after SIGHUP the terminal may have gone, and there is nobody left to tell.
fn restore() {
    let _ = crossterm::execute!(stdout(), EndSynchronizedUpdate, DisableMouseCapture);
    let _ = disable_raw_mode();
    let _ = crossterm::execute!(stdout(), LeaveAlternateScreen, Show);
}

fn events(
    app: &mut App,
    inbox: &Receiver<Msg>,
    asker: Option<&Asker>,
    restore: &Restore,
    terminal: &mut Screen,
) -> Result<(), Failure> {
    let started = Instant::now();
    let before = app.now;
    let mut dirty = true;
    let mut drawn: Option<Instant> = None;
    loop {
        if restore.is_done() {
            return Err(Failure::failed("a thread of the dashboard panicked"));
        }
        let frame_due = drawn.map_or(Duration::ZERO, |at| FRAME.saturating_sub(at.elapsed()));
        let idle = app.player.due().unwrap_or(TICK).clamp(FRAME, TICK);
        let mut msg = match inbox.recv_timeout(if dirty { frame_due } else { idle }) {
            Ok(msg) => Some(msg),
            Err(RecvTimeoutError::Timeout) => Some(Msg::Tick),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let size = terminal.size().map_err(|e| Failure::doing("cannot ask the terminal", e))?;
        // All that has come goes into one frame.
        while let Some(next) = msg {
            let area = Rect::new(0, 0, size.width, size.height);
            match update(app, next, before + started.elapsed(), area) {
                Flow::Quit => return Ok(()),
                Flow::Draw => dirty = true,
                Flow::Rest => {}
            }
            msg = inbox.try_recv().ok();
        }
        for ask in app.asks.drain(..) {
            // With the queue full the same is asked again with the next sample.
            let _ = asker.map(|asker| asker.try_send(ask));
        }
        if dirty && drawn.is_none_or(|at| at.elapsed() >= FRAME) {
            draw(app, terminal).map_err(|e| Failure::doing("cannot draw on the terminal", e))?;
            (dirty, drawn) = (false, Some(Instant::now()));
        }
    }
}

/// One frame, shown by the terminal as a whole.
fn draw(app: &mut App, terminal: &mut Screen) -> io::Result<()> {
    if std::mem::take(&mut app.redraw) {
        terminal.clear()?;
    }
    crossterm::queue!(terminal.backend_mut(), BeginSynchronizedUpdate)?;
    terminal.draw(|frame| view::view(app, frame))?;
    crossterm::queue!(terminal.backend_mut(), EndSynchronizedUpdate)?;
    terminal.backend_mut().flush()
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
