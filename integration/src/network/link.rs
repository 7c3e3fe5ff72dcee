//! One connection through the proxy.

use std::io;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::head;
use super::rule::{Fault, Point};
use super::state::{Fired, Plan, Shared, Way};

/// Bytes that are passed on at once. Small, so that a limit on speed is smooth.
const CHUNK: usize = 16 << 10;

/// Why a connection ends before both sides have ended it.
enum End {
    Reset,
    Close,
}

impl From<io::Error> for End {
    /// One side is gone in a bad way; so it looks to the other side.
    fn from(_: io::Error) -> Self {
        Self::Reset
    }
}

/// Passes bytes on until both sides are done or a fault ends it; `resets` is from when the connection was accepted.
pub(super) async fn run(mut client: TcpStream, shared: Shared, mut resets: watch::Receiver<u64>) {
    let Ok(mut server) = TcpStream::connect(shared.upstream()).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let link = Link { shared: &shared, current: Mutex::default() };
        let both = async { tokio::try_join!(link.up(from_client, to_server), link.down(from_server, to_client)) };
        tokio::select! {
            // A reset comes first: what was held must not go on because the hold is over a moment later.
            biased;
            _ = resets.changed() => Some(End::Reset),
            ended = both => ended.err(),
        }
    };
    if let Some(End::Reset) = ended {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

struct Link<'a> {
    shared: &'a Shared,
    current: Mutex<Current>,
}

/// A fault that is to strike once some bytes are passed on. If the connection ends before, another one has it.
struct Owed<'a> {
    shared: &'a Shared,
    rule: Option<Fired>,
    fault: Fault,
}

impl Owed<'_> {
    fn settle(mut self) -> Option<(Fired, Fault)> {
        self.rule.take().map(|rule| (rule, self.fault))
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if let Some(rule) = self.rule.take() {
            self.shared.take_back(rule);
        }
    }
}

/// The request that runs, as the way back sees it.
#[derive(Default)]
struct Current {
    plan: Plan,
    answer_bytes: u64,
}

impl Link<'_> {
    /// From the client to the server: heads are read, bodies counted.
    async fn up(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), End> {
        let mut buffer = Vec::new();
        loop {
            let (head, length) = loop {
                match head::parse(&buffer) {
                    Ok(Some(parsed)) => break parsed,
                    Ok(None) => {}
                    Err(reason) => {
                        self.shared.break_with(reason);
                        return Err(End::Reset);
                    }
                }
                if from.read_buf(&mut buffer).await? == 0 {
                    to.shutdown().await?;
                    return Ok(());
                }
            };
            let plan = self.shared.plan(&head);
            *self.lock() = Current { plan: plan.clone(), answer_bytes: 0 };
            for (rule, _, fault) in plan.0.iter().filter(|(_, point, _)| *point == Point::Head) {
                self.strike(*rule, *fault).await?;
            }
            let mut rest = buffer.split_off(length);
            self.send(Way::Up, &mut to, &buffer).await?;

            let mut faults: Vec<(u64, Fired, Fault)> = Vec::new();
            for (rule, point, fault) in plan.0 {
                if let Point::Body(at) = point {
                    faults.push((at.min(head.body_bytes), rule, fault));
                }
            }
            faults.sort_by_key(|(at, ..)| *at);
            let mut faults = faults.into_iter().peekable();
            let mut sent = 0;
            loop {
                while let Some((_, rule, fault)) = faults.next_if(|(at, ..)| *at <= sent) {
                    self.strike(rule, fault).await?;
                }
                if sent == head.body_bytes {
                    break;
                }
                if rest.is_empty() {
                    rest.reserve(CHUNK);
                    let limit = (head.body_bytes - sent).min(CHUNK as u64);
                    if (&mut from).take(limit).read_buf(&mut rest).await? == 0 {
                        return Err(End::Reset);
                    }
                }
                let stop = faults.peek().map_or(head.body_bytes, |(at, ..)| *at) - sent;
                let count = usize::try_from(stop).unwrap_or(usize::MAX).min(rest.len());
                self.send(Way::Up, &mut to, &rest[..count]).await?;
                rest.drain(..count);
                sent += count as u64;
            }
            buffer = rest;
        }
    }

    /// From the server to the client: counted from the request on that they answer.
    async fn down(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), End> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                to.shutdown().await?;
                return Ok(());
            }
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let (may, strikes) = {
                    let mut current = self.lock();
                    let done = current.answer_bytes;
                    let place = |point: Point| match point {
                        Point::Answer => Some(0),
                        Point::AnswerBody(at) => Some(at),
                        _ => None,
                    };
                    let ahead = current.plan.0.iter().filter_map(|(_, point, _)| place(*point)).filter(|at| *at > done);
                    let stop = ahead.min().map_or(u64::MAX, |at| at - done);
                    let may = usize::try_from(stop).unwrap_or(usize::MAX).min(rest.len());
                    current.answer_bytes += may as u64;
                    let due = |point: Point| place(point).is_some_and(|at| at == done);
                    let strikes: Vec<_> = current.plan.0.iter().filter(|(_, point, _)| due(*point)).cloned().collect();
                    (may, strikes)
                };
                for (rule, _, fault) in strikes {
                    self.strike(rule, fault).await?;
                }
                self.send(Way::Down, &mut to, &rest[..may]).await?;
                rest = &rest[may..];
            }
        }
    }

    /// Passes bytes on as the switches for all connections allow.
    async fn send(&self, way: Way, to: &mut WriteHalf<'_>, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            let (may, struck) = self.shared.pass(way, bytes.len().min(CHUNK));
            let owed = struck.map(|(rule, fault)| Owed { shared: self.shared, rule: Some(rule), fault });
            self.thawed().await;
            if may > 0 {
                if let Some(due) = self.shared.due(may) {
                    tokio::time::sleep_until(due).await;
                }
                to.write_all(&bytes[..may]).await?;
                bytes = &bytes[may..];
            }
            if let Some((rule, fault)) = owed.and_then(Owed::settle) {
                self.strike(rule, fault).await?;
            }
        }
        Ok(())
    }

    async fn strike(&self, rule: Fired, fault: Fault) -> Result<(), End> {
        let mut frozen = self.shared.frozen.subscribe();
        let healed = frozen.borrow_and_update().0;
        if !self.shared.strike(rule, fault) {
            return Ok(());
        }
        match fault {
            Fault::Reset | Fault::Refuse(_) => Err(End::Reset),
            Fault::Close => Err(End::Close),
            Fault::Stall => {
                let _ = frozen.wait_for(|(now, _)| *now > healed).await;
                Ok(())
            }
            Fault::Freeze => {
                self.thawed().await;
                Ok(())
            }
            Fault::Slow(_) => Ok(()),
        }
    }

    async fn thawed(&self) {
        let _ = self.shared.frozen.subscribe().wait_for(|(_, frozen)| !frozen).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().expect("nobody panics while holding it")
    }
}
