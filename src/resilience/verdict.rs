//! Decides after the result of an attempt: its response is forwarded, or the request is repeated or
//! refused. Until then, the client gets no part of the response.

use super::retry::Failed;
use crate::error::{Flag, Refusal};

/// The maximum number of repetitions of a request that do not need a retry policy.
pub const REPEATS_MAX: usize = 2;

/// The properties of an attempt and its request.
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

/// Decides about an attempt with the result `failed`.
pub fn verdict(failed: Failed, circumstances: Circumstances) -> Verdict {
    let Circumstances { reused, idempotent, replayable, repeats } = circumstances;
    let (safe, refusal) = match failed {
        Failed::Unprocessed => (true, UNPROCESSED),
        Failed::Reset { .. } => (reused && idempotent, SILENT),
        Failed::Response(_) | Failed::Connect | Failed::Timeout => return Verdict::PassOn,
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
    use crate::resilience::Response;

    const SILENCE: Failed = Failed::Reset { sent: true };

    #[test]
    fn a_request_is_sent_again_only_when_that_is_safe() {
        let usual = Circumstances { reused: true, idempotent: true, replayable: true, repeats: 0 };
        for (failed, circumstances, expected) in [
            (
                Failed::Response(Response { status: 503, ..Response::default() }),
                usual,
                Verdict::PassOn,
            ),
            (Failed::Unprocessed, usual, Verdict::Repeat),
            (Failed::Unprocessed, Circumstances { idempotent: false, ..usual }, Verdict::Repeat),
            (Failed::Unprocessed, Circumstances { reused: false, ..usual }, Verdict::Repeat),
            (
                Failed::Unprocessed,
                Circumstances { replayable: false, ..usual },
                Verdict::Refuse(UNPROCESSED),
            ),
            (
                Failed::Unprocessed,
                Circumstances { repeats: REPEATS_MAX, ..usual },
                Verdict::Refuse(UNPROCESSED),
            ),
            (SILENCE, usual, Verdict::Repeat),
            (SILENCE, Circumstances { idempotent: false, ..usual }, Verdict::Refuse(SILENT)),
            (SILENCE, Circumstances { reused: false, ..usual }, Verdict::Refuse(SILENT)),
        ] {
            assert_eq!(verdict(failed, circumstances), expected, "{failed:?} {circumstances:?}");
        }
    }
}
