//! SIGINT and SIGTERM: the first asks for an orderly abort, the second leaves at once.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use vdstream::{Error, ErrorKind, Result};

use crate::exit::Signal;

/// Waits for the signals. Install it before anything starts that a signal should end in good order.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

/// The signal that asked for the end, for the exit code; 0 is none.
static SEEN: AtomicU8 = AtomicU8::new(0);

impl Signals {
    pub(crate) fn install() -> Result<Self> {
        let listen = |kind, name: &'static str| {
            signal(kind).map_err(|error| {
                Error::new(ErrorKind::Internal, format!("cannot listen for {name}")).with_source(error)
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
        })
    }

    /// Completes at the next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        let signal = tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        };
        SEEN.store(signal.code(), Ordering::Relaxed);
        signal
    }

    /// Waits for the second signal and leaves the process at once, without cleaning up.
    pub(crate) async fn leave_at_the_next(mut self) -> std::convert::Infallible {
        let signal = self.next().await;
        crate::output::note(&format!("second signal ({}): leaving at once, without cleaning up", signal.name()));
        std::process::exit(i32::from(signal.code()))
    }
}
