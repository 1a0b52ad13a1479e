//! The wrapper of every stored value: a format byte and a checksum over the key and the body.
//!
//! ```text
//!   [format u8][crc32c u32, big-endian][body]
//! ```
//!
//! sled sums its own messages, but not what comes out of its cache, and other stores may not sum at all. The key is
//! summed too, so a value that turns up under another key is found out.

use crate::ports::store::VALUE_BYTES_MAX;
use bytes::{BufMut, Bytes, BytesMut};

/// The format that this version writes, and the only one that it reads.
pub const FORMAT: u8 = 1;
/// Bytes of the largest body that fits into a value.
pub const BODY_BYTES_MAX: usize = VALUE_BYTES_MAX - HEAD_BYTES;

/// Bytes before the body.
pub const HEAD_BYTES: usize = 5;

const _: () = assert!(atelier_state::limits::ENTRY_BYTES_MAX + 1024 <= BODY_BYTES_MAX);

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Too short to hold a head.
    #[error("{0} bytes are too few for a frame of at least {HEAD_BYTES}")]
    Short(usize),
    /// Written by another version.
    #[error("format {0} is unknown to this version, which reads format {FORMAT}; upgrade the node")]
    Format(u8),
    /// Damaged.
    #[error("checksum is {found:08x} where {expected:08x} was written")]
    Checksum {
        /// What was written.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
}

/// The checksum of a key and a body that comes in parts.
#[derive(Clone, Copy, Debug)]
pub struct Sum(u32);

impl Sum {
    /// The sum of a key and of nothing behind it yet.
    pub fn of(key: &[u8]) -> Sum {
        Sum(crc32c::crc32c(key))
    }

    /// The sum of no bytes, for a part that is summed apart.
    pub fn of_part() -> Sum {
        Sum(0)
    }

    /// Adds the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// Adds a part of that many bytes that was summed apart.
    pub fn add_part(&mut self, part: Sum, bytes: usize) {
        self.0 = crc32c::crc32c_combine(self.0, part.0, bytes);
    }

    /// Returns the head of the frame whose body this is the sum of.
    pub fn head(self) -> [u8; HEAD_BYTES] {
        let [a, b, c, d] = self.0.to_be_bytes();
        [FORMAT, a, b, c, d]
    }
}

/// Wraps a body that will be stored under a key.
pub fn seal(key: &[u8], body: &[u8]) -> Bytes {
    let mut sum = Sum::of(key);
    sum.add(body);
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + body.len());
    frame.put_slice(&sum.head());
    frame.put_slice(body);
    frame.freeze()
}

/// Unwraps what was stored under a key.
///
/// # Errors
/// When the bytes are not what [`seal`] made for this key.
pub fn open(key: &[u8], frame: &Bytes) -> Result<Bytes, FrameError> {
    let Some((head, body)) = frame.split_first_chunk::<HEAD_BYTES>() else {
        return Err(FrameError::Short(frame.len()));
    };
    let [format, sum @ ..] = *head;
    if format != FORMAT {
        return Err(FrameError::Format(format));
    }
    let mut found = Sum::of(key);
    found.add(body);
    let (expected, found) = (u32::from_be_bytes(sum), found.0);
    if expected != found {
        return Err(FrameError::Checksum { expected, found });
    }
    Ok(frame.slice(HEAD_BYTES..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sum_up_as_the_whole_does() {
        let (one, two, three) = (&b"one"[..], &[7; 100_000][..], &b"three"[..]);
        let mut part = Sum::of_part();
        part.add(two);
        let mut sum = Sum::of(b"key");
        sum.add(one);
        sum.add_part(part, two.len());
        sum.add(three);
        let whole = [one, two, three].concat();
        assert_eq!(sum.head(), seal(b"key", &whole)[..HEAD_BYTES]);
    }

    #[test]
    fn a_frame_gives_its_body_back() {
        let frame = seal(b"key", b"body");
        assert_eq!(open(b"key", &frame), Ok(Bytes::from_static(b"body")));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let frame = seal(b"key", b"a body of some length");
        for bit in 0..frame.len() * 8 {
            let mut bytes = frame.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(b"key", &bytes.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_found() {
        let frame = seal(b"key", b"a body of some length");
        for length in 0..frame.len() {
            assert!(open(b"key", &frame.slice(..length)).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_value_under_another_key_is_found() {
        assert!(open(b"yek", &seal(b"key", b"body")).is_err());
    }
}
