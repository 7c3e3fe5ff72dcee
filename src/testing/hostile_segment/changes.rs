//! Changes to valid bytes, as an input says.

/// No object grows beyond this.
const MOST: usize = 3 << 20;

/// Changes `object` by each four bytes of `input`: what is done, where, and with which mask. Blocks of `block` bytes, the first of which
/// begins at `start`, also change places.
pub(super) fn change(object: &mut Vec<u8>, input: &[u8], start: usize, block: usize) {
    for field in input.chunks_exact(4) {
        let [kind, low, high, mask] = *field else { break };
        if object.is_empty() {
            break;
        }
        let at = place(object.len(), kind, u16::from_le_bytes([low, high]));
        match kind / 4 % 8 {
            0..=3 => object[at] ^= mask,
            4 => object.truncate(at),
            5 => {
                let length = at.min(usize::from(mask) * 257).min(MOST.saturating_sub(object.len()));
                object.extend_from_within(at - length..at);
            }
            6 => {
                // Some bytes once more, over others.
                let length = usize::from(mask).min(object.len() - at);
                let to = usize::from(low ^ mask) % (object.len() - length + 1);
                object.copy_within(at..at + length, to);
            }
            _ => exchange(object.get_mut(start..).unwrap_or_default(), block, usize::from(low), usize::from(mask)),
        }
    }
}

/// Where it is: counted from the start, from the end, or spread over everything.
fn place(length: usize, kind: u8, number: u16) -> usize {
    let number = usize::from(number);
    match kind % 4 {
        0 => number % length,
        1 => length - 1 - number % length,
        _ => (number * length) >> 16,
    }
}

/// Two whole blocks change places.
fn exchange(bytes: &mut [u8], block: usize, one: usize, other: usize) {
    let count = bytes.len() / block;
    if count < 2 {
        return;
    }
    let (first, second) = (one % count, other % count);
    let (first, second) = (first.min(second), first.max(second));
    if first < second {
        let (front, back) = bytes.split_at_mut(second * block);
        front[first * block..(first + 1) * block].swap_with_slice(&mut back[..block]);
    }
}

/// Changes the lines of a header by each three bytes of `input`: removed, repeated, exchanged, lengthened, or a byte of one.
#[cfg(feature = "encryption")]
pub(super) fn change_lines(header: &[u8], input: &[u8], most: usize) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = header.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for field in input.chunks_exact(3) {
        let [kind, which, value] = *field else { break };
        if lines.is_empty() {
            break;
        }
        let count = lines.len();
        let line = usize::from(which) % count;
        match kind % 6 {
            0 => drop(lines.remove(line)),
            1 => {
                let again = lines[line].clone();
                let room = most.saturating_sub(lines.iter().map(Vec::len).sum()) / again.len().max(1);
                let times = usize::from(value).min(room);
                lines.splice(line..line, std::iter::repeat_n(again, times));
            }
            2 => lines.swap(line, usize::from(value) % count),
            3 => {
                let at = usize::from(kind / 6) % (lines[line].len() + 1);
                lines[line].insert(at, value);
            }
            4 => lines[line].truncate(usize::from(value)),
            _ => {
                let length = lines[line].len().max(1);
                if let Some(byte) = lines[line].get_mut(usize::from(kind / 6) % length) {
                    *byte ^= value;
                }
            }
        }
    }
    lines.concat()
}
