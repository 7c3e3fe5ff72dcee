//! Virtual device streams: parallel byte streams become one atomic, verified backup on object storage, and come back.
//!
//! ```text
//! backup  -->
//!             commands            AsyncRead          frames             segments, then manifest
//!  engine  -->  vdi::server ⇄ vdi::client  -->  stream  -->  pipeline  -->  backup  -->  object store
//!          <--  completions       AsyncWrite     verified frames    ranged reads            <--  restore
//! ```
//!
//! # A backup in ten lines
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> vdstream::Result<()> {
//! use tokio::io::AsyncWriteExt as _;
//! use vdstream::backup::{Backup, BackupOptions, Restore, RestoreOptions, Select, Store, find};
//!
//! let store = Store::memory(); // or Store::from_url("s3://backups/prod")?
//! let mut backup = Backup::begin(&store, "orders", BackupOptions::default()).await?;
//! let mut writer = backup.take_writers()?.remove(0);
//! writer.write_all(b"every order of the day").await?;
//! writer.shutdown().await?;
//! backup.commit().await?;
//!
//! let manifest = find(&store, &"orders".parse()?, Select::Latest).await?;
//! let mut bytes = Vec::new();
//! Restore::begin(&store, &manifest, RestoreOptions::default())?.write_to(0, &mut bytes).await?;
//! assert_eq!(bytes, b"every order of the day");
//! # Ok(())
//! # }
//! ```
//!
//! # What it guarantees
//!
//! * A backup exists if and only if its manifest exists, and then every object that it names exists with that length and hash.
//! * The end of a stream is not success: only the shutdown of every writer and then `commit` is. A dropped writer, a failed
//!   stripe, an abort and a crash leave no backup.
//! * Every command that a device set accepts is answered exactly once. `close` returns after the completion agent has ended;
//!   what was still in flight has resolved as aborted, with the reason.
//! * One memory number covers all buffers of all stripes; it is planned before the first byte moves.
//! * No byte is restored before its frame's hash was checked against the manifest.
//! * Nothing runs unseen: no runtime, no detached task, no thread. Each public async function says what happens if it is dropped.
//!
//! # What it does not do
//!
//! Deduplication, point-in-time recovery of a given database, file system mounts, other storage protocols.
//!
//! # Where things are
//!
//! | module | concern |
//! |---|---|
//! | [`vdi`] | virtual device sets: commands, completions, the completion agent, close and abort |
//! | [`stream`] | devices as `AsyncRead` and `AsyncWrite` |
//! | [`pipeline`] | frames, zstd, hashes, parts, segments; ranged and verified reads |
//! | [`backup`] | stores, backup sets, commit, catalog, restore, verification, retention, collection, the doctor of stores |
//! | [`buffer`] | pools of fixed-size slots under one byte budget |
//! | [`clock`] | time as a component |
//! | [`error`] | one error type whose kind says what to do next |
//! | `testing` | tools for tests of your own stores and transports (feature `testing`) |
//! | [`manual`] | how it works, and why: one page per question |
//!
//! # Features
//!
//! | feature | brings |
//! |---|---|
//! | `fs` (default) | local disk: `file://` URLs and plain paths |
//! | `aws`, `azure`, `gcp` | S3, Azure Blob Storage, Google Cloud Storage; each brings in rustls |
//! | `encryption` | segments as age files: `age` and its cryptography |
//! | `cli` | the command line tool |
//! | `metrics` | numbers through the facade of the crate `metrics`: see [`manual::observing`] |
//! | `shm` | device sets between processes, through shared memory (Linux) |
//! | `testing` | test doubles and conformance suites; not semver-stable |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backup;
pub mod buffer;
pub mod clock;
pub mod error;
pub mod manual;
pub(crate) mod meter;
pub mod pipeline;
#[cfg(feature = "shm")]
#[allow(unsafe_code, reason = "the one module that may")]
pub(crate) mod shm;
pub mod stream;
pub(crate) mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod vdi;

pub use error::{Error, ErrorKind, Result};

#[cfg(all(feature = "shm", not(target_os = "linux")))]
compile_error!("the feature `shm` needs sealed memory files, which only Linux has");

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;
