//! What can go wrong with an exchange, who is to blame, and what the client is told.
//!
//! Every refusal names a status, a response flag (Envoy's letters, so that dashboards and habits
//! carry over) and a detail that says exactly which check said no.

/// Why an exchange did not go the ordinary way: the `response_flags` of log and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// NR: no route matched.
    NoRoute,
    /// UH: no healthy endpoint in the service.
    NoHealthyUpstream,
    /// UF: connecting to the endpoint failed.
    UpstreamConnectFailure,
    /// UC: the endpoint closed the connection before it had answered.
    UpstreamConnectionTermination,
    /// UT: the route's or service's timeout passed.
    UpstreamTimeout,
    /// UPE: the endpoint's answer is not valid HTTP.
    UpstreamProtocolError,
    /// UO: a limit on the service was reached.
    UpstreamOverflow,
    /// DPE: the client's request is not valid HTTP, or ambiguous.
    DownstreamProtocolError,
    /// DC: the client went away first.
    DownstreamConnectionTermination,
    /// DT: the client was too slow (header or body timeout).
    DownstreamTimeout,
    /// OM: the proxy is at one of its own limits.
    Overload,
    /// UAEX: a rule of `authorization:` denies it.
    Unauthorized,
    /// OD: a captured connection has no original destination that it may go to.
    OriginalDestination,
}

impl Flag {
    /// Every flag, in the order of [`Flag::index`].
    pub const ALL: [Self; 13] = [
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
        Self::OriginalDestination,
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
            Self::OriginalDestination => "OD",
        }
    }

    /// Whether it blames the endpoint.
    pub fn blames_endpoint(self) -> bool {
        matches!(
            self,
            Self::UpstreamConnectFailure
                | Self::UpstreamConnectionTermination
                | Self::UpstreamTimeout
                | Self::UpstreamProtocolError
        )
    }

    /// Position in [`Flag::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A refusal: what the client is told and what the operator sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status of the local answer.
    pub status: u16,
    /// The response flag.
    pub flag: Flag,
    /// Which check refused, in words an operator can search for: `two content-length values`.
    pub detail: &'static str,
}

impl Refusal {
    /// A request that is not HTTP or is ambiguous: `status` is usually 400.
    pub const fn downstream(status: u16, detail: &'static str) -> Self {
        Self { status, flag: Flag::DownstreamProtocolError, detail }
    }

    /// An answer of an endpoint that is not HTTP or is ambiguous: 502.
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
