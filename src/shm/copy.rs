//! Copies between private memory and memory that another process may write at any moment.
//!
//! Each shared byte is touched exactly once, by a volatile access: the compiler may neither repeat a read (a value that was
//! checked could differ from the one that is used) nor read the source again in place of the copy, as it may after a plain
//! `memcpy`.

/// Fills `target` from shared memory.
///
/// # Safety
///
/// `source` must be mapped and readable for `target.len()` bytes.
pub(super) unsafe fn load(source: *const u8, target: &mut [u8]) {
    let head = source.align_offset(WORD).min(target.len());
    let (first, rest) = target.split_at_mut(head);
    for (index, byte) in first.iter_mut().enumerate() {
        // SAFETY: `index` is below `target.len()`, for which the caller vouches; a byte is always aligned.
        *byte = unsafe { source.wrapping_add(index).read_volatile() };
    }
    let middle = source.wrapping_add(head);
    let (lines, last) = rest.as_chunks_mut::<LINE>();
    for (index, line) in lines.iter_mut().enumerate() {
        let from = middle.wrapping_add(index * LINE).cast::<[u64; LINE / WORD]>();
        // SAFETY: the line lies below `target.len()`; `middle` is aligned, or no line is left. An array has no invalid value.
        let words = unsafe { from.read_volatile() };
        for (bytes, word) in line.as_chunks_mut::<WORD>().0.iter_mut().zip(words) {
            *bytes = word.to_ne_bytes();
        }
    }
    let tail = head + lines.len() * LINE;
    for (index, byte) in last.iter_mut().enumerate() {
        // SAFETY: `tail + index` is below `target.len()`, for which the caller vouches; a byte is always aligned.
        *byte = unsafe { source.wrapping_add(tail + index).read_volatile() };
    }
}

/// Puts `source` into shared memory.
///
/// # Safety
///
/// `target` must be mapped and writable for `source.len()` bytes.
pub(super) unsafe fn store(source: &[u8], target: *mut u8) {
    let head = target.align_offset(WORD).min(source.len());
    let (first, rest) = source.split_at(head);
    for (index, byte) in first.iter().enumerate() {
        // SAFETY: `index` is below `source.len()`, for which the caller vouches; a byte is always aligned.
        unsafe { target.wrapping_add(index).write_volatile(*byte) };
    }
    let middle = target.wrapping_add(head);
    let (lines, last) = rest.as_chunks::<LINE>();
    for (index, line) in lines.iter().enumerate() {
        let mut words = [0; LINE / WORD];
        for (word, bytes) in words.iter_mut().zip(line.as_chunks::<WORD>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let to = middle.wrapping_add(index * LINE).cast::<[u64; LINE / WORD]>();
        // SAFETY: the line lies below `source.len()`, and `middle` is aligned, or no line is left.
        unsafe { to.write_volatile(words) };
    }
    let tail = head + lines.len() * LINE;
    for (index, byte) in last.iter().enumerate() {
        // SAFETY: `tail + index` is below `source.len()`, for which the caller vouches; a byte is always aligned.
        unsafe { target.wrapping_add(tail + index).write_volatile(*byte) };
    }
}

const WORD: usize = size_of::<u64>();
/// Bytes that one step moves.
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_offset_arrives_and_nothing_else_is_touched() {
        let source: Vec<u8> = (0..400).map(|number: u32| (number % 251) as u8 + 1).collect();
        for offset in 0..9 {
            for len in [0, 1, 7, 8, 9, 63, 64, 65, 71, 72, 127, 128, 129, 200] {
                let mut target = vec![0; 400];
                // SAFETY: `offset + len` is below the length of the vector.
                unsafe { store(&source[..len], target.as_mut_ptr().wrapping_add(offset)) };
                assert_eq!(target[offset..offset + len], source[..len]);
                assert!(target[..offset].iter().chain(&target[offset + len..]).all(|byte| *byte == 0));
                let mut back = vec![0; len];
                // SAFETY: as above.
                unsafe { load(target.as_ptr().wrapping_add(offset), &mut back) };
                assert_eq!(back, source[..len]);
            }
        }
    }
}
