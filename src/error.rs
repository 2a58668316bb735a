//! Errors of exchanges: the party that caused the error, and the response to the client.
//!
//! Every refusal has a status, a response flag and a detail. The flags are Envoy's letters, so that
//! dashboards for Envoy work unchanged. The detail names the exact check that failed.

/// Returns the text of a system error without its number: `No such file or directory (os error 2)`
/// becomes `No such file or directory`.
pub fn plain(error: &impl std::fmt::Display) -> String {
    let mut text = error.to_string();
    let number = text.rsplit_once(" (os error ").and_then(|(words, rest)| {
        let digits = rest.strip_suffix(')')?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(words.len())
    });
    text.truncate(number.unwrap_or(text.len()));
    text
}

/// Why an exchange did not go normally: `response_flags` in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// NR: no route matched.
    NoRoute,
    /// UH: no healthy endpoint in the service.
    NoHealthyUpstream,
    /// UF: connecting to the endpoint failed.
    UpstreamConnectFailure,
    /// UC: the endpoint closed the connection before its response was complete.
    UpstreamConnectionTermination,
    /// UT: the route's or service's timeout passed.
    UpstreamTimeout,
    /// UPE: the endpoint's response is not valid HTTP.
    UpstreamProtocolError,
    /// UO: a limit on the service was reached.
    UpstreamOverflow,
    /// DPE: the client's request is not valid HTTP, or ambiguous.
    DownstreamProtocolError,
    /// DC: the client closed the connection before the exchange was complete.
    DownstreamConnectionTermination,
    /// DT: the client was too slow (header or body timeout).
    DownstreamTimeout,
    /// OM: the proxy reached one of its own limits.
    Overload,
    /// UAEX: authorization or a token check denied the request, or a certificate was revoked.
    Unauthorized,
    /// RL: a rate limit refused the request.
    RateLimited,
    /// RLSE: the rate limit service did not answer.
    RateLimitService,
    /// OD: a captured connection must not be forwarded to its original destination, or has none.
    OriginalDestination,
    /// FI: the route injected an abort.
    FaultInjected,
    /// DI: the route injected a delay.
    DelayInjected,
    /// SI: no byte passed for `stream_idle_timeout`.
    StreamIdle,
}

impl Flag {
    /// All flags, in the order of [`Flag::index`].
    pub const ALL: [Self; 18] = [
        Self::NoRoute,
        Self::NoHealthyUpstream,
        Self::UpstreamConnectFailure,
        Self::UpstreamConnectionTermination,
        Self::UpstreamTimeout,
        Self::UpstreamProtocolError,
        Self::UpstreamOverflow,
        Self::DownstreamProtocolError,
        Self::DownstreamConnectionTermination,
        Self::DownstreamTimeout,
        Self::Overload,
        Self::Unauthorized,
        Self::RateLimited,
        Self::RateLimitService,
        Self::OriginalDestination,
        Self::FaultInjected,
        Self::DelayInjected,
        Self::StreamIdle,
    ];

    /// The letters that logs and metrics show.
    pub fn letters(self) -> &'static str {
        match self {
            Self::NoRoute => "NR",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnectFailure => "UF",
            Self::UpstreamConnectionTermination => "UC",
            Self::UpstreamTimeout => "UT",
            Self::UpstreamProtocolError => "UPE",
            Self::UpstreamOverflow => "UO",
            Self::DownstreamProtocolError => "DPE",
            Self::DownstreamConnectionTermination => "DC",
            Self::DownstreamTimeout => "DT",
            Self::Overload => "OM",
            Self::Unauthorized => "UAEX",
            Self::RateLimited => "RL",
            Self::RateLimitService => "RLSE",
            Self::OriginalDestination => "OD",
            Self::FaultInjected => "FI",
            Self::DelayInjected => "DI",
            Self::StreamIdle => "SI",
        }
    }

    /// Whether the endpoint caused the error, not the client or the proxy.
    pub fn blames_endpoint(self) -> bool {
        matches!(
            self,
            Self::UpstreamConnectFailure
                | Self::UpstreamConnectionTermination
                | Self::UpstreamTimeout
                | Self::UpstreamProtocolError
        )
    }

    /// The position in [`Flag::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A refusal: the response to the client and the reason for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status of the local reply.
    pub status: u16,
    /// The response flag.
    pub flag: Flag,
    /// The check that failed, in a text that operators can search for: `more than one
    /// Content-Length`.
    pub detail: &'static str,
}

impl Refusal {
    /// A refusal of a request that is malformed or ambiguous. `status` is usually 400.
    pub const fn downstream(status: u16, detail: &'static str) -> Self {
        Self { status, flag: Flag::DownstreamProtocolError, detail }
    }

    /// A refusal of a response that is malformed or ambiguous: 502.
    pub const fn upstream(detail: &'static str) -> Self {
        Self { status: 502, flag: Flag::UpstreamProtocolError, detail }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.flag.letters(), self.detail)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn the_number_of_a_system_error_is_left_out() {
        for (code, words) in [(2, "No such file or directory"), (13, "Permission denied")] {
            assert_eq!(plain(&std::io::Error::from_raw_os_error(code)), words);
        }
        for text in ["it has no end (os error", "a (os error 1) b", "(os error x)", ""] {
            assert_eq!(plain(&text), text);
        }
        assert_eq!(plain(&"fails: Broken pipe (os error 32)"), "fails: Broken pipe");
    }
}
