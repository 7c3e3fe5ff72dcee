//! How vdstream works, and why: one page per question.
//!
//! | to | read, in this order |
//! |---|---|
//! | try it | [`walkthrough`], [`guarantees`] |
//! | run backups | [`stores`], [`operating`], [`encryption`], [`verify`], [`retention`], [`collection`], [`costs`] |
//! | watch them, or read what the tool prints | [`progress`], [`observing`], [`report`], [`documents`] |
//! | use the library | [`architecture`], [`memory`], [`cancellation`], [`lifecycle`] |
//! | write an engine or an agent | [`vdi`], then `shm` for other processes |
//! | read what is stored, or change how | [`layout`], [`format`](mod@format), [`commit`] |

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("cancellation.md")]
pub mod cancellation {}

#[doc = include_str!("collection.md")]
pub mod collection {}

#[doc = include_str!("commit.md")]
pub mod commit {}

#[doc = include_str!("costs.md")]
pub mod costs {}

#[doc = include_str!("documents.md")]
#[doc = "```json"]
#[doc = include_str!("schema.json")]
#[doc = "```"]
pub mod documents {}

#[doc = include_str!("encryption.md")]
pub mod encryption {}

#[doc = include_str!("format.md")]
pub mod format {}

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("layout.md")]
pub mod layout {}

#[doc = include_str!("lifecycle.md")]
pub mod lifecycle {}

#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("observing.md")]
pub mod observing {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("progress.md")]
pub mod progress {}

#[doc = include_str!("report.md")]
pub mod report {}

#[doc = include_str!("retention.md")]
pub mod retention {}

#[cfg(feature = "shm")]
#[doc = include_str!("shm.md")]
pub mod shm {}

#[doc = include_str!("stores.md")]
pub mod stores {}

#[doc = include_str!("vdi.md")]
pub mod vdi {}

#[doc = include_str!("verify.md")]
pub mod verify {}

#[doc = include_str!("walkthrough.md")]
pub mod walkthrough {}
