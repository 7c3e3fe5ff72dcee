//! A TCP proxy that makes a network fail at a named point.
//!
//! It stands before one server and passes bytes on. A [`Rule`] says where it does something else: at the n-th request of a kind,
//! before it, after so many bytes of its body, or when its answer has come. So a fault hits the same place of a backup in every run,
//! whatever the machine is busy with; nothing here waits for a time to pass, except where time is the fault itself.
//!
//! It reads request heads and body lengths of HTTP/1.1, nothing more. TLS is not spoken: the servers of the tests are on loopback.

mod handle;
mod head;
mod link;
mod rule;
mod state;

pub use handle::Proxy;
pub use rule::{Fault, Point, Rule, Wanted};
pub use state::{Fired, Seen};
