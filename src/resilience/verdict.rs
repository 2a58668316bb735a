//! The verdict on an attempt, before the client has seen anything of it.

use crate::error::{Flag, Refusal};

/// How often a request is sent again because no endpoint has processed it.
pub const REPEATS_MAX: usize = 2;

/// What the endpoint has said when the verdict is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The head of a response with this status.
    Head(u16),
    /// It has not processed the request (REFUSED_STREAM, GOAWAY; RFC 9113 8.7).
    Unprocessed,
    /// Its connection ended before the first byte of a response.
    Silence,
}

/// The circumstances of the attempt.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The connection has carried exchanges before: it may have died unnoticed.
    pub reused: bool,
    /// The method is idempotent (RFC 9110 9.2.2).
    pub idempotent: bool,
    /// The whole request is at hand, to be sent from its beginning.
    pub replayable: bool,
    /// How often the request was sent again before.
    pub repeats: usize,
}

/// The verdict on an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The response goes to the client.
    PassOn,
    /// The request is sent again, on a fresh connection.
    Repeat,
    /// The client gets this refusal.
    Refuse(Refusal),
}

/// The verdict on an attempt that heard `heard`.
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
    detail: "the endpoint did not take the request",
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
