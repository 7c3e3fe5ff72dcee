//! Test data that shows where a misplaced byte came from.

use std::time::SystemTime;

/// The variable that repeats a run with its printed seed.
pub const SEED_VARIABLE: &str = "VDSTREAM_TEST_SEED";

/// A stream of bytes in which each byte is a function of the seed, the stripe and its own offset.
///
/// Two stripes, or two offsets of one stripe, never agree for long, so a swapped, dropped or repeated frame is visible, and
/// [`Pattern::check`] can say from where the wrong bytes came.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    seed: u64,
    stripe: u16,
    entropy: Entropy,
}

/// How well the data compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entropy {
    /// Every word is new: nothing to gain.
    Random,
    /// Readable lines that count: about a tenth remains.
    Text,
}

/// One line of [`Entropy::Text`], and one word of [`Entropy::Random`].
const LINE: usize = 64;
const WORD: usize = 8;

impl Pattern {
    /// The data of a stripe.
    pub fn new(seed: u64, stripe: u16, entropy: Entropy) -> Self {
        Self { seed, stripe, entropy }
    }

    /// The bytes from `offset` on, `len` of them.
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let unit = match self.entropy {
            Entropy::Random => WORD,
            Entropy::Text => LINE,
        };
        let skip = usize::try_from(offset % unit as u64).expect("a remainder of a small number");
        let mut bytes = Vec::with_capacity(skip + len + unit);
        let mut index = offset / unit as u64;
        while bytes.len() < skip + len {
            match self.entropy {
                Entropy::Random => bytes.extend_from_slice(&self.word(index).to_le_bytes()),
                Entropy::Text => {
                    let line = format!("stripe {:5} line {index:20} seed {:016x}", self.stripe, self.seed);
                    bytes.extend_from_slice(format!("{line:<63}\n").as_bytes());
                }
            }
            index += 1;
        }
        bytes.truncate(skip + len);
        bytes.drain(..skip);
        bytes
    }

    /// Compares what came back with the first `len` bytes of this data.
    ///
    /// # Errors
    ///
    /// Says at which offset they differ, and the length that came back when it is another.
    pub fn check(&self, actual: &[u8], len: usize) -> Result<(), String> {
        let expected = self.bytes(0, len);
        if actual == expected {
            return Ok(());
        }
        let at = actual.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or_else(|| actual.len().min(len));
        let window = |bytes: &[u8]| bytes[at.min(bytes.len())..(at + 16).min(bytes.len())].to_vec();
        Err(format!(
            "{self:x?}: {} bytes came back instead of {len}, different from offset {at} on: {:02x?} instead of {:02x?}",
            actual.len(),
            window(actual),
            window(&expected)
        ))
    }

    fn word(&self, index: u64) -> u64 {
        mix(self.seed ^ mix(index ^ (u64::from(self.stripe) << 48)))
    }
}

/// The seed of this run: the variable's, else a new one. It is printed, so that a failure can be repeated.
///
/// # Panics
///
/// When the variable holds something that is not a number.
pub fn seed() -> u64 {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE} is not a number: {text}")),
        Err(_) => mix(nanoseconds()),
    };
    println!("{SEED_VARIABLE}={seed}");
    seed
}

/// A number below `limit` that depends on the seed alone.
///
/// # Panics
///
/// When there is no number below it.
pub fn below(seed: u64, limit: u64) -> u64 {
    mix(seed).checked_rem(limit).expect("a limit above 0")
}

/// A name that no other test of any run uses: the test's own, and a number.
pub fn unique(name: &str) -> String {
    format!("{name}-{:x}-{:x}", std::process::id(), nanoseconds())
}

fn nanoseconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(now.as_nanos() % u128::from(u64::MAX)).expect("a remainder below the divisor")
}

/// A bijection that spreads every bit over the word (the finaliser of SplitMix64).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_window_equals_the_same_window_of_the_whole() {
        for entropy in [Entropy::Random, Entropy::Text] {
            let pattern = Pattern::new(7, 3, entropy);
            let whole = pattern.bytes(0, 400);
            for offset in [0, 1, 7, 8, 9, 63, 64, 65, 200] {
                for len in [0, 1, 7, 8, 9, 63, 64, 65, 200] {
                    assert_eq!(pattern.bytes(offset as u64, len), whole[offset..offset + len], "{entropy:?}");
                }
            }
        }
    }

    #[test]
    fn a_shifted_or_swapped_stream_is_found() {
        let pattern = Pattern::new(7, 3, Entropy::Random);
        assert_eq!(pattern.check(&pattern.bytes(0, 100), 100), Ok(()));
        assert!(pattern.check(&pattern.bytes(8, 100), 100).is_err());
        assert!(pattern.check(&pattern.bytes(0, 99), 100).is_err());
        assert!(pattern.check(&pattern.bytes(0, 101), 100).is_err());
        assert!(pattern.check(&Pattern::new(7, 4, Entropy::Random).bytes(0, 100), 100).is_err());
    }
}
