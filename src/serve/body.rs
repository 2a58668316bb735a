//! How much of what was read belongs to the body of the message under way.

use crate::error::Refusal;
use crate::http1::chunked::Decoder;
use crate::http1::framing::Body;
use crate::snapshot::Limits;

/// Follows one body through the portions in which it comes.
pub enum BodyProgress {
    /// That many bytes are still to come.
    Length(u64),
    /// Chunks; validated here and passed on as they are.
    Chunked(Box<Decoder>),
    /// Everything until the peer ends.
    UntilClose,
    /// Nothing (more) belongs to it.
    Done,
}

impl BodyProgress {
    /// The progress at the start of a body framed as `body`.
    pub fn new(body: Body) -> Self {
        match body {
            Body::None | Body::Length(0) => Self::Done,
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunked(Box::default()),
            Body::UntilClose => Self::UntilClose,
        }
    }

    /// How many of `bytes` belong to the body.
    ///
    /// # Errors
    /// When they are not chunks, or more than `limits` allow.
    pub fn take(&mut self, bytes: &[u8], limits: &Limits) -> Result<usize, Refusal> {
        match self {
            Self::Done => Ok(0),
            Self::UntilClose => Ok(bytes.len()),
            Self::Length(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |n| n.min(bytes.len()));
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(taken)
            }
            Self::Chunked(decoder) => {
                let step = decoder.decode(bytes, limits)?;
                if step.done {
                    *self = Self::Done;
                }
                Ok(step.consumed)
            }
        }
    }

    /// As [`BodyProgress::take`], for chunks of which only the data is wanted: it is moved to the
    /// front of `bytes`.
    ///
    /// # Errors
    /// As for [`BodyProgress::take`].
    pub fn take_data(&mut self, bytes: &mut [u8], limits: &Limits) -> Result<Taken, Refusal> {
        let Self::Chunked(decoder) = self else {
            return self.take(bytes, limits).map(|n| Taken { consumed: n, kept: n });
        };
        let (step, kept) = decoder.decode_data(bytes, limits)?;
        if step.done {
            *self = Self::Done;
        }
        Ok(Taken { consumed: step.consumed, kept })
    }

    /// Whether all of it has been seen.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether the peer may end here without having truncated the body.
    pub fn may_end(&self) -> bool {
        matches!(self, Self::Done | Self::UntilClose)
    }

    /// Bytes still to come, where they are known and need not be looked at.
    pub fn opaque_bytes(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::UntilClose | Self::Chunked(_) | Self::Done => None,
        }
    }

    /// `n` opaque bytes have passed by another way.
    pub fn passed(&mut self, n: u64) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(n);
            if *left == 0 {
                *self = Self::Done;
            }
        }
    }
}

/// What became of the bytes given to [`BodyProgress::take_data`].
pub struct Taken {
    /// So many of them belonged to the body.
    pub consumed: usize,
    /// So many of them, at the front now, are data.
    pub kept: usize,
}
