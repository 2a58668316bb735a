//! Decides what happens after the first event of an attempt, before the client gets any of its
//! response.

use crate::error::{Flag, Refusal};

/// The maximum number of repetitions of a request that do not need a retry policy.
pub const REPEATS_MAX: usize = 2;

/// The first event of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The head of a response with this status.
    Head(u16),
    /// The endpoint did not process the request (REFUSED_STREAM, GOAWAY; RFC 9113 8.7).
    Unprocessed,
    /// The connection ended before the first byte of a response was received.
    Silence,
}

/// The properties of the attempt and its request.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Whether the connection was used before. The endpoint may have closed it in the meantime.
    pub reused: bool,
    /// Whether the method is idempotent (RFC 9110 9.2.2).
    pub idempotent: bool,
    /// Whether the whole request is buffered, so that it can be sent again.
    pub replayable: bool,
    /// How often the request was already repeated.
    pub repeats: usize,
}

/// The verdict on an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forward the response to the client.
    PassOn,
    /// Send the request again on a new connection.
    Repeat,
    /// Send this refusal to the client.
    Refuse(Refusal),
}

/// Decides about an attempt whose first event is `heard`.
pub fn verdict(heard: Heard, circumstances: Circumstances) -> Verdict {
    let Circumstances { reused, idempotent, replayable, repeats } = circumstances;
    let (safe, refusal) = match heard {
        Heard::Head(_) => return Verdict::PassOn,
        Heard::Unprocessed => (true, UNPROCESSED),
        Heard::Silence => (reused && idempotent, SILENT),
    };
    match safe && replayable && repeats < REPEATS_MAX {
        true => Verdict::Repeat,
        false => Verdict::Refuse(refusal),
    }
}

const SILENT: Refusal = Refusal {
    status: 502,
    flag: Flag::UpstreamConnectionTermination,
    detail: "the endpoint closed the connection before it answered",
};

const UNPROCESSED: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectionTermination,
    detail: "the endpoint did not accept the request",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_again_only_when_that_is_safe() {
        let usual = Circumstances { reused: true, idempotent: true, replayable: true, repeats: 0 };
        for (heard, circumstances, expected) in [
            (Heard::Head(503), usual, Verdict::PassOn),
            (Heard::Unprocessed, usual, Verdict::Repeat),
            (Heard::Unprocessed, Circumstances { idempotent: false, ..usual }, Verdict::Repeat),
            (Heard::Unprocessed, Circumstances { reused: false, ..usual }, Verdict::Repeat),
            (
                Heard::Unprocessed,
                Circumstances { replayable: false, ..usual },
                Verdict::Refuse(UNPROCESSED),
            ),
            (
                Heard::Unprocessed,
                Circumstances { repeats: REPEATS_MAX, ..usual },
                Verdict::Refuse(UNPROCESSED),
            ),
            (Heard::Silence, usual, Verdict::Repeat),
            (Heard::Silence, Circumstances { idempotent: false, ..usual }, Verdict::Refuse(SILENT)),
            (Heard::Silence, Circumstances { reused: false, ..usual }, Verdict::Refuse(SILENT)),
        ] {
            assert_eq!(verdict(heard, circumstances), expected, "{heard:?} {circumstances:?}");
        }
    }
}
