//! Memory, files and sockets that processes of one device set share. All `unsafe` code of the crate is here.
//!
//! # Who is trusted with what
//!
//! The kernel is trusted, and so is this process. The process at the other end is not: it is let in by its user or group
//! (`SO_PEERCRED`), and from there on it may be wrong, stopped, killed, or hostile. What it can do is end its own set.
//!
//! | the peer | what happens |
//! |---|---|
//! | sends nonsense, or what its state does not allow | its message is not believed; the set is aborted, with that as the reason |
//! | does that before it has joined | disconnected; the set goes on without it |
//! | sends a length, a count, a place, a number out of bounds | the same, before anything is allocated, read or written by it |
//! | sends without end, or does not read | reading takes turns with other tasks; what waits to be written is bounded, then the set is aborted |
//! | sends many buffers that are small and need much | as many as the area has room for with their alignment, then the set is aborted |
//! | sends files that were not announced, or the wrong ones | closed; the set is aborted. Only sealed memory files are mapped |
//! | makes a shared file shorter | it cannot: the size is sealed (`F_SEAL_SHRINK`, `F_SEAL_GROW`, `F_SEAL_SEAL`), and that is checked before mapping |
//! | writes to the shared memory at any time | other bytes arrive, as if it had sent them. Nothing else is decided by them |
//! | answers a command that it does not hold, or twice | nobody gets an answer; the set is aborted |
//! | connects and says nothing | disconnected after 5 seconds, or when the set is closed; 16 of them at once at most |
//! | is stopped (`SIGSTOP`) | the server's no-progress timer; closing waits 0.3 seconds at most to say goodbye |
//! | may write to the directory too | takes, or removes, names in it. Links in the place of a socket are not followed when its mode is set |
//! | dies | the kernel closes its socket; the set is aborted at once, with "peer died" and its process number as the reason |
//!
//! # Why the unsafe code is sound
//!
//! 1. *No reference to shared bytes.* A shared byte may change at any moment, which no `&[u8]` or `&mut [u8]` allows. [`Region`]
//!    keeps a raw pointer, and lets bytes through only by `copy`, which reads and writes each of them once, by volatile accesses.
//!    What was copied is private and stands still: it is checked, hashed, compressed after the copy, never before.
//! 2. *No access out of bounds.* Every access goes through one check of offset and length against the length of the mapping,
//!    without overflow.
//! 3. *No fault.* The file cannot become shorter than the mapping, because its seals say so and cannot be taken off. A page that
//!    the peer punches out of it comes back as zeros, because it is an ordinary one: files of huge pages are refused.
//! 4. *No use after the end.* The mapping lives as long as its [`Region`], which is shared by an `Arc` with every buffer in it.
//!    A set that is closed lets go of its regions; a buffer that somebody holds keeps its own.
//! 5. *The only references* into shared memory are to `AtomicU64` words of [`Control`], whose type says that others write them.
//!    They hold claims and places; a place read there is checked like one that came in a message.
//!
//! Mapping, unmapping, the two copies and the atomic words are all the unsafe operations there are. The transport above, in
//! `vdi`, has none.

mod control;
mod copy;
mod directory;
mod error;
mod region;
mod socket;
pub(crate) mod wire;

pub(crate) use control::{Control, Returned};
pub(crate) use directory::{Directory, Entry, Found};
pub(crate) use error::ShmError;
pub(crate) use region::Region;
pub(crate) use socket::{Attached, Credentials, Inbox, Received, Socket};
