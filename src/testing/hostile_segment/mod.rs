//! Segments made to harm, driven by bytes: for fuzzers, and for tests with seeds.
//!
//! Each input takes something valid and changes it where its bytes say: the stored object, the index in it, the age header before
//! it, the summary that describes it. Whatever that makes of it: nobody panics, memory stays within the limit, what is delivered is
//! a prefix of what was stored, and an end that comes too early is an error.
//!
//! | what is hostile | |
//! |---|---|
//! | one frame, under an index that believes it | [`Bench::frame`] |
//! | several segments of several frames, read in several ranges | [`Bench::stripe`] |
//! | a segment of which only the size is known, as resuming reads it | [`Bench::survey`] |
//! | an encrypted segment (feature `encryption`): its header, its chunks, and what is in them | `Bench::sealed` |
//!
//! Each answers whether everything was read, so that a test sees that its inputs reach both ends.

mod bench;
mod changes;
mod frame;
mod made;
#[cfg(feature = "encryption")]
mod sealed;
mod shelf;
mod stripe;
mod survey;
#[cfg(test)]
mod tests;

pub use self::bench::Bench;
