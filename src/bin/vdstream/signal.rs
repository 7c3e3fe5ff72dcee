//! SIGINT, SIGTERM and SIGHUP: the first asks for an orderly end, the second leaves at once.

use std::convert::Infallible;

use tokio::signal::unix::{SignalKind, signal};
use vdstream::backup::Store;
use vdstream::{Error, ErrorKind, Result};

use crate::exit::{Failure, Signal};
use crate::output;
use crate::program;

/// Waits for the signals. Install it before anything starts that a signal should end in good order.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// `None` under `nohup`: who asked to be spared is spared.
    hangup: Option<tokio::signal::unix::Signal>,
    seen: u32,
}

impl Signals {
    pub(crate) fn install() -> Result<Self> {
        let listen = |kind, name: &'static str| {
            signal(kind).map_err(|error| {
                Error::new(ErrorKind::Internal, format!("cannot listen for {name}")).with_source(error)
            })
        };
        Ok(Self {
            hangup: if is_hangup_ignored() { None } else { Some(listen(SignalKind::hangup(), "SIGHUP")?) },
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            seen: 0,
        })
    }

    /// Completes at the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let signal = tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = hangup => Signal::Hangup,
        };
        self.seen += 1;
        signal
    }

    /// Does `work` unless a signal comes first. Then it is dropped where it stands, so it must bear that.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T, Failure> {
        tokio::select! {
            done = work => Ok(done?),
            signal = self.next() => Err(Failure::Signal(signal)),
        }
    }

    /// Waits until nothing of `store` runs in the background any more.
    pub(crate) async fn until_idle(&mut self, store: &Store) {
        tokio::select! {
            () = store.wait_idle() => {}
            never = self.put_off("what was begun ends first") => match never {},
        }
    }

    /// While something goes on that should not be interrupted: says at the first signal that `what` comes first, and leaves the
    /// process at the second, without cleaning up.
    pub(crate) async fn put_off(&mut self, what: &str) -> Infallible {
        loop {
            let signal = self.next().await;
            if self.seen > 1 {
                output::note(&format!("second signal ({}): leaving at once, without cleaning up", signal.name()));
                program::leave();
                std::process::exit(i32::from(signal.code()))
            }
            output::note(&format!("{}: {what}; once more leaves at once", signal.name()));
        }
    }
}

/// Whether whoever started this process has asked that SIGHUP be ignored, as `nohup` does.
fn is_hangup_ignored() -> bool {
    const SIGHUP_BIT: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & SIGHUP_BIT != 0)
}
