//! The proxy as a test holds it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::link;
use super::rule::Rule;
use super::state::{Fired, Seen, Shared, State, Way};

/// A running proxy, on a thread of its own so that a test may block. Dropping it ends it and resets its connections.
pub struct Proxy {
    shared: Shared,
    endpoint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy before the server at this endpoint, `http://127.0.0.1:PORT/path`.
    ///
    /// # Panics
    ///
    /// When loopback has no free port.
    pub fn start(upstream: &str) -> Self {
        let shared = Arc::new(State::new(upstream));
        let (stop, stopped) = oneshot::channel();
        let (ready, port) = std::sync::mpsc::sync_channel(1);
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = listen(0);
                let port = listener.local_addr().expect("a bound listener has an address").port();
                ready.send(port).expect("the test waits for it");
                tokio::select! {
                    () = accept(listener, port, state) => {}
                    _ = stopped => {}
                }
            });
        });
        let port = port.recv().expect("the thread says where it listens");
        let path = upstream.splitn(4, '/').nth(3).map_or_else(String::new, |path| format!("/{path}"));
        Self { shared, endpoint: format!("http://127.0.0.1:{port}{path}"), stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens, with the path that belongs to the server.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// From now on, new connections go to the server at this endpoint.
    pub fn set_upstream(&self, upstream: &str) {
        self.shared.set_upstream(upstream);
    }

    /// Adds a fault. Several may strike the same request.
    pub fn add(&self, rule: Rule) -> Fired {
        self.shared.add(rule)
    }

    /// Ends all faults: what stands still goes on, and no rule strikes any more.
    pub fn heal(&self) {
        self.shared.heal();
    }

    /// Resets every connection that is open now.
    pub fn reset_all(&self) {
        self.shared.reset_all();
    }

    /// How often the rule struck.
    pub fn fired(&self, rule: Fired) -> u64 {
        self.shared.fired(rule)
    }

    /// Blocks until the rule has struck; `false` if it does not within `limit`.
    pub fn wait_fired(&self, rule: Fired, limit: Duration) -> bool {
        self.shared.wait_fired(rule, 1, limit)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen()
    }

    /// Bytes passed to the server.
    pub fn up_bytes(&self) -> u64 {
        self.shared.bytes(Way::Up)
    }

    /// Bytes passed from the server.
    pub fn down_bytes(&self) -> u64 {
        self.shared.bytes(Way::Down)
    }

    /// What the proxy could not follow, if anything: then its results mean nothing.
    pub fn broken(&self) -> Option<String> {
        self.shared.broken()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn listen(port: u16) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a fresh socket takes options");
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).expect("the port is ours");
    socket.listen(128).expect("a bound socket listens")
}

/// Accepts connections; while they are refused, nobody listens.
async fn accept(mut listener: TcpListener, port: u16, shared: Shared) {
    let mut links = JoinSet::new();
    let mut resets = shared.resets.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Seen from now on: whoever retries at once must not slip through between a fault and the end of the listening.
                let resets = shared.resets.subscribe();
                if let Ok((client, _)) = accepted {
                    match shared.refused_until() {
                        Some(_) => drop(client.set_zero_linger()),
                        None => drop(links.spawn(link::run(client, Arc::clone(&shared), resets))),
                    }
                }
            }
            Some(_) = links.join_next() => {}
            _ = resets.changed() => {
                if shared.refused_until().is_some() {
                    drop(listener);
                    let mut heals = shared.frozen.subscribe();
                    while let Some(until) = shared.refused_until() {
                        tokio::select! {
                            () = tokio::time::sleep_until(until) => {}
                            _ = heals.changed() => {}
                        }
                    }
                    listener = listen(port);
                }
            }
        }
    }
}
