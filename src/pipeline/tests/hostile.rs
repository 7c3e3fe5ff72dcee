//! Damaged and hostile segments: an error that says where, bounded memory, and never a wrong byte before it.

use bytes::BytesMut;
use proptest::prelude::*;

use super::store::MemoryStore;
use super::*;
use crate::ErrorKind;
use crate::pipeline::codec::stored_bound;
use crate::pipeline::index::{FrameEntry, SegmentIndex, TailError, tail_bytes};
use crate::pipeline::{MAX_SEGMENT_FRAMES, SegmentId, SegmentSummary};

const FRAME: usize = 64 * KIB;
const FIRST: SegmentId = SegmentId { stripe: 0, index: 0 };

/// Backs `bytes` up with `config`.
async fn stored(config: PipelineConfig, bytes: &Bytes) -> (MemoryStore, StripeSummary) {
    let store = MemoryStore::new();
    let pipeline = backup_pipeline(config, 1, &store);
    let summary = pipeline.backup_stripe(0, pieces(bytes, FRAME)).await.unwrap();
    (store, summary)
}

/// Restores a stripe whose first object was replaced: all of the content, or a prefix of it and an error.
async fn restore_damaged(summary: &StripeSummary, object: Bytes, bytes: &Bytes) -> Result<()> {
    let store = MemoryStore::new();
    store.state.objects.lock().insert(FIRST, object);
    let back = restore_pipeline(small(), 1, &store);
    let mut out = Vec::new();
    let mut frames = Box::pin(back.restore_stripe(0, summary));
    let mut outcome = Ok(());
    while let Some(frame) = frames.next().await {
        assert!(outcome.is_ok(), "nothing follows an error");
        match frame {
            Ok(frame) => out.extend_from_slice(&frame),
            Err(error) => outcome = Err(error),
        }
    }
    assert!(bytes.starts_with(&out), "a wrong byte was handed out");
    assert!(outcome.is_err() || out.len() == bytes.len(), "an end without an error came too early");
    drop(frames);
    assert_idle(&back, &store).await;
    outcome
}

fn two_frames() -> Bytes {
    let mut bytes = BytesMut::zeroed(FRAME + 1000);
    bytes[10..200].copy_from_slice(&data(190, 4));
    bytes.freeze()
}

#[tokio::test]
async fn every_cut_of_a_segment_is_found() {
    let bytes = two_frames();
    let (store, summary) = stored(small(), &bytes).await;
    let object = store.objects(0).remove(0);
    for len in 0..object.len() {
        let error = restore_damaged(&summary, object.slice(..len), &bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {len}: {error:?}");
    }
}

#[tokio::test]
async fn every_flipped_byte_of_a_segment_is_found() {
    let bytes = two_frames();
    let (store, summary) = stored(small(), &bytes).await;
    let object = store.objects(0).remove(0);
    let mut harmless = 0;
    for index in 0..object.len() {
        for mask in [0xff, 0x01, 0x80, 0x10] {
            let mut damaged = BytesMut::from(&object[..]);
            damaged[index] ^= mask;
            assert_ne!(blake3::hash(&damaged), summary.segments[0].stored_hash);
            match restore_damaged(&summary, damaged.freeze(), &bytes).await {
                // zstd leaves a bit of each frame header unused; the content is right then, as was checked.
                Ok(()) => harmless += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {index}: {error:?}");
                    let text = error.report();
                    assert!(text.contains("stripe 0 segment 0, offset "), "{text}");
                }
            }
        }
    }
    assert!(harmless <= summary.segments[0].frames, "{harmless} flips were not found");
}

#[tokio::test]
async fn flips_in_a_segment_of_many_ranges_are_found() {
    let bytes = data(40 * FRAME, 8);
    let (store, summary) = stored(small(), &bytes).await;
    let object = store.objects(0).remove(0);
    assert!(object.len() > 512 * KIB, "read in ranges");
    for index in (0..object.len()).step_by(9973) {
        let mut damaged = BytesMut::from(&object[..]);
        damaged[index] ^= 0xff;
        let error = restore_damaged(&summary, damaged.freeze(), &bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn swapped_replayed_and_foreign_segments_are_found() {
    let config = PipelineConfig { segment_bytes: 1, ..small() };
    let bytes = data(20 * FRAME, 8);
    let (store, summary) = stored(config, &bytes).await;
    let objects = store.objects(0);
    assert!(objects.len() > 2);
    let error = restore_damaged(&summary, objects[1].clone(), &bytes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);

    let mut dropped = summary.clone();
    dropped.segments.pop();
    let mut swapped = summary.clone();
    swapped.segments.swap(0, 1);
    for wrong in [dropped, swapped] {
        let error = restore(&restore_pipeline(small(), 1, &store), 0, &wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

fn decode(tail: &[u8], segment: &SegmentSummary) -> std::result::Result<SegmentIndex, TailError> {
    SegmentIndex::decode(tail, segment, segment.stored_bytes, |hash| hash)
}

/// A segment of given frames that agrees with its index and its summary.
fn forged(frame_bytes: u32, frames: Vec<FrameEntry>, data: &[u8]) -> (Bytes, StripeSummary) {
    let index = SegmentIndex { frame_bytes, frames };
    let tail = index.encode();
    let raw_bytes = index.frames.iter().map(|frame| u64::from(frame.raw_bytes)).sum();
    let object = [data, &tail].concat();
    let segment = SegmentSummary {
        index: 0,
        raw_offset: 0,
        raw_bytes,
        stored_bytes: object.len() as u64,
        frames: index.frames.len() as u32,
        tail_bytes: tail.len() as u64,
        raw_hash: index.raw_hash(),
        stored_hash: blake3::hash(&object),
        header: None,
    };
    let summary = StripeSummary { raw_bytes, stored_bytes: segment.stored_bytes, segments: vec![segment] };
    (object.into(), summary)
}

#[tokio::test]
async fn a_decompression_bomb_gets_no_more_than_its_slot() {
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 3).unwrap();
    let entry = FrameEntry { stored_bytes: bomb.len() as u32, raw_bytes: FRAME as u32, hash: [7; 32] };
    let (object, summary) = forged(FRAME as u32, vec![entry], &bomb);
    assert!(bomb.len() < stored_bound(FRAME), "small enough to pass as a frame");
    let error = restore_damaged(&summary, object, &Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.report().contains("found a damaged one"), "{error:?}");
}

#[tokio::test]
async fn a_frame_larger_than_planned_is_refused_before_it_is_read() {
    let raw = vec![1; 2 * FRAME];
    let frame = zstd::bulk::compress(&raw, 3).unwrap();
    let entry = FrameEntry {
        stored_bytes: frame.len() as u32,
        raw_bytes: raw.len() as u32,
        hash: *blake3::hash(&raw).as_bytes(),
    };
    let (object, summary) = forged(2 * FRAME as u32, vec![entry], &frame);
    let error = restore_damaged(&summary, object, &raw.into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_hostile_summary_is_refused_without_a_read() {
    let bytes = two_frames();
    let (store, good) = stored(small(), &bytes).await;
    let edits: [fn(&mut SegmentSummary); 9] = [
        |segment| segment.index = 1,
        |segment| segment.raw_offset = u64::MAX,
        |segment| segment.raw_bytes = u64::MAX,
        |segment| segment.stored_bytes = u64::MAX,
        |segment| segment.stored_bytes = 0,
        |segment| segment.frames = 0,
        |segment| segment.frames = MAX_SEGMENT_FRAMES + 1,
        |segment| segment.frames = u32::MAX,
        |segment| segment.tail_bytes = u64::MAX,
    ];
    for edit in edits {
        let mut summary = good.clone();
        edit(&mut summary.segments[0]);
        let back = restore_pipeline(small(), 1, &store);
        let error = restore(&back, 0, &summary).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(back.progress().requests, 0);
    }
}

proptest! {
    #[test]
    fn an_index_survives_encoding_and_no_mutation_of_it_does(
        frames in 1_u32..40,
        last in 1_u32..=65536,
        seed: u64,
        at: prop::sample::Index,
        mask in 1_u8..,
    ) {
        let noise = data(frames as usize * 64, seed);
        let entries = noise.chunks(64).enumerate().map(|(nth, noise)| FrameEntry {
            // Even one raw byte may have 60 stored ones.
            stored_bytes: 1 + u32::from(noise[0] % 60),
            raw_bytes: if nth as u32 + 1 == frames { last } else { FRAME as u32 },
            hash: noise[32..].try_into().unwrap(),
        });
        let entries: Vec<FrameEntry> = entries.collect();
        let stored: usize = entries.iter().map(|entry| entry.stored_bytes as usize).sum();
        let (object, summary) = forged(FRAME as u32, entries.clone(), &vec![0; stored]);
        let tail = &object[stored..];
        let segment = &summary.segments[0];
        prop_assert_eq!(tail.len() as u64, tail_bytes(frames));
        prop_assert_eq!(decode(tail, segment).unwrap().frames, entries);
        let mut damaged = tail.to_vec();
        let at = at.index(damaged.len());
        damaged[at] ^= mask;
        let outcome = decode(&damaged, segment);
        // The nominal frame size of a single frame says nothing about it, as long as the frame fits.
        let is_frame_size = (16..20).contains(&at);
        prop_assert!(outcome.is_err() || (frames == 1 && is_frame_size));
    }

    #[test]
    fn noise_as_an_index_is_an_error_and_nothing_else(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        frames: u32,
        raw_bytes: u64,
        stored_bytes: u64,
    ) {
        let hash = blake3::hash(b"");
        let tail_bytes = noise.len() as u64;
        let segment = SegmentSummary {
            index: 0, raw_offset: 0, raw_bytes, stored_bytes, frames, tail_bytes, raw_hash: hash, stored_hash: hash, header: None,
        };
        prop_assert!(decode(&noise, &segment).is_err());
    }
}
