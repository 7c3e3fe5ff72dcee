//! The decoder of a segment's index and seek table: tails that were forged to fit their summary, then changed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vdstream::testing::decoder::{forged_segment, segment_tail};

fuzz_target!(|bytes: &[u8]| {
    let [first, rest @ ..] = bytes else { return };
    if first % 4 == 0 {
        // Bytes of the caller's own, with numbers of the caller's own.
        let [stored, raw, frames, tail @ ..] = rest else { return };
        let (_, mut summary) = forged_segment(65_536, &[], &[]);
        summary.frames = u32::from(*frames);
        summary.raw_bytes = u64::from(*raw);
        summary.stored_bytes = u64::from(*stored) + tail.len() as u64;
        summary.tail_bytes = tail.len() as u64;
        let _ = segment_tail(tail, &summary);
        return;
    }
    let frame_bytes = [65_536, 1 << 26, 1 << 27, u32::from(*first)][usize::from(first / 4 % 4)];
    // Per frame: how its sizes are meant, and two numbers.
    let mut frames = Vec::new();
    let mut changes: &[u8] = &[];
    for (at, field) in rest.chunks(4).enumerate() {
        let [kind, a, b, c] = *field else { break };
        if kind == 255 {
            changes = &rest[at * 4 + 4..];
            break;
        }
        let raw = match kind % 4 {
            0 | 1 => frame_bytes,
            2 => u32::from(a),
            _ => u32::from_le_bytes([a, b, c, kind]),
        };
        let stored = if kind % 8 < 6 { u32::from(b) } else { u32::from_le_bytes([kind, c, b, a]) };
        frames.push((stored, raw, [c; 32]));
    }
    let stored: u64 = frames.iter().map(|frame| u64::from(frame.0)).sum();
    let data = vec![0; usize::try_from(stored.min(1 << 16)).expect("it is small")];
    let (object, mut summary) = forged_segment(frame_bytes, &frames, &data);
    let mut tail = object[data.len()..].to_vec();
    // A summary need not be true: what the manifest says is not what the object is.
    summary.stored_bytes = stored + summary.tail_bytes;
    let untouched = changes.is_empty();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % tail.len();
        tail[at] ^= change[2];
    }
    if let Ok(count) = segment_tail(&tail, &summary) {
        assert_eq!(count, frames.len());
        assert!(frames.iter().all(|(stored, raw, _)| *stored > 0 && *raw > 0 && *raw <= frame_bytes));
        assert!(untouched || count == 1 || tail == object[data.len()..], "a change was not noticed");
    }
});
