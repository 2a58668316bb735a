//! Counts the gRPC messages in a body. Each message has one byte of flags, four bytes of length,
//! and its data.

/// Length of the prefix of each message.
const PREFIX_BYTES: u8 = 5;

/// The counter for one direction of a call. Data arrives in parts of any size.
#[derive(Clone, Debug, Default)]
pub struct MessageCounter {
    /// The number of started messages.
    count: u64,
    /// Remaining data bytes of the current message.
    left: u64,
    /// How many bytes of a message prefix have arrived, and the length that they encode.
    prefix_bytes: u8,
    length: u32,
}

impl MessageCounter {
    /// Whether all messages that have begun are complete.
    pub fn is_between(&self) -> bool {
        self.left == 0 && self.prefix_bytes == 0
    }

    /// Adds the next part of the body. Returns how many messages begin in it.
    pub fn take(&mut self, mut data: &[u8]) -> u64 {
        let before = self.count;
        while !data.is_empty() {
            if self.left > 0 {
                let n = usize::try_from(self.left).map_or(data.len(), |left| left.min(data.len()));
                self.left -= n as u64;
                data = &data[n..];
                continue;
            }
            if self.prefix_bytes > 0 {
                self.length = self.length << 8 | u32::from(data[0]);
            }
            self.prefix_bytes += 1;
            data = &data[1..];
            if self.prefix_bytes == PREFIX_BYTES {
                self.count += 1;
                self.left = u64::from(self.length);
                (self.prefix_bytes, self.length) = (0, 0);
            }
        }
        self.count - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_split() {
        let body = [&[0, 0, 0, 0, 3][..], b"abc", &[1, 0, 0, 0, 0], &[0, 0, 0, 1, 0], &[7; 256]];
        let body = body.concat();
        for size in [1, 2, 5, 6, body.len()] {
            let mut counter = MessageCounter::default();
            let count: u64 = body.chunks(size).map(|portion| counter.take(portion)).sum();
            assert_eq!(count, 3, "{size}");
        }
        let mut counter = MessageCounter::default();
        for (part, whole) in [(&body[..4], false), (&body[4..6], false), (&body[6..8], true)] {
            counter.take(part);
            assert_eq!(counter.is_between(), whole, "{part:?}");
        }
    }
}
