//! The hash of names and field lines. It can be computed at compile time.
//!
//! The hash is not secret, so a peer can send values that collide. Then each field line costs at
//! most a comparison with the whole table (4 KiB).

const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;

/// The start value of each hash. It is chosen so that all lines of the static table have different
/// slots.
pub const SEED: u64 = 319;

/// Returns the hash of a name.
#[inline]
pub const fn of_name(name: &[u8]) -> u64 {
    after(SEED, name)
}

/// Continues the hash `before` with `bytes`.
#[inline]
pub const fn after(before: u64, bytes: &[u8]) -> u64 {
    let mut hash = before ^ bytes.len() as u64;
    let mut rest = bytes;
    while let Some((word, more)) = rest.split_first_chunk()
        && !more.is_empty()
    {
        hash = mix(hash, u64::from_le_bytes(*word));
        rest = more;
    }
    // The last word may overlap the word before it.
    mix(hash, last_word(bytes))
}

/// Returns the last eight bytes, or a value made of all bytes if there are fewer.
#[inline]
const fn last_word(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.last_chunk() {
        return u64::from_le_bytes(*word);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u32::from_le_bytes(*first) as u64) << 32 | u32::from_le_bytes(*last) as u64;
    }
    match bytes {
        [] => 0,
        [first, .., last] => {
            (*first as u64) << 16 | (bytes[bytes.len() / 2] as u64) << 8 | *last as u64
        }
        [only] => *only as u64,
    }
}

#[inline]
const fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(26) ^ word).wrapping_mul(FACTOR)
}

/// The upper bits of a hash, which are mixed best.
#[inline]
pub const fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}
