//! Signals and what they mean, as nginx's.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `SIGHUP`: read the configuration anew.
    Reload,
    /// `SIGQUIT`: finish what is under way, then end.
    Quit,
    /// `SIGTERM`, `SIGINT`, by number: end now.
    Stop(i32),
    /// `SIGUSR1`: open log files anew.
    Reopen,
    /// `SIGUSR2`, `SIGWINCH`, by number: what nginx does there is not carried out.
    Unsupported(i32),
}

const SIGNALS: [(i32, &str, Command); 7] = [
    (1, "SIGHUP", Command::Reload),
    (3, "SIGQUIT", Command::Quit),
    (15, "SIGTERM", Command::Stop(15)),
    (2, "SIGINT", Command::Stop(2)),
    (10, "SIGUSR1", Command::Reopen),
    (12, "SIGUSR2", Command::Unsupported(12)),
    (28, "SIGWINCH", Command::Unsupported(28)),
];

impl Command {
    /// The number of its signal.
    pub fn number(self) -> i32 {
        SIGNALS.iter().find(|s| s.2 == self).map_or(0, |s| s.0)
    }

    /// What the log says when it came.
    pub fn received(self) -> String {
        let (number, name, _) = SIGNALS.into_iter().find(|s| s.2 == self).unwrap_or((0, "", self));
        let what = match self {
            Command::Reload => "reconfiguring",
            Command::Quit => "shutting down",
            Command::Stop(_) => "exiting",
            Command::Reopen => "reopening logs",
            Command::Unsupported(_) => "which is not carried out",
        };
        format!("signal {number} ({name}) received, {what}")
    }
}

/// The process's signals, from now on caught.
pub struct Signals([Signal; SIGNALS.len()]);

/// Signals whose default would end the process, and that mean nothing to it: caught and forgotten, as nginx does.
const MEANINGLESS: [SignalKind; 2] = [SignalKind::alarm(), SignalKind::io()];

impl Signals {
    /// Catches them. Needs a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> io::Result<Signals> {
        for kind in MEANINGLESS {
            // The handler stays when the stream of its signals is dropped.
            drop(signal(kind)?);
        }
        let catch = |i: usize| signal(SignalKind::from_raw(SIGNALS[i].0));
        Ok(Signals([catch(0)?, catch(1)?, catch(2)?, catch(3)?, catch(4)?, catch(5)?, catch(6)?]))
    }

    /// The next signal's meaning.
    pub async fn next(&mut self) -> Command {
        self.first(|_| true).await
    }

    /// The next signal that ends the process at once; others wait.
    pub async fn stop(&mut self) -> Command {
        self.first(|c| matches!(c, Command::Stop(_))).await
    }

    async fn first(&mut self, wanted: impl Fn(Command) -> bool) -> Command {
        std::future::poll_fn(|cx| {
            for (signal, (_, _, command)) in self.0.iter_mut().zip(SIGNALS) {
                if wanted(command) && signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(command);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
