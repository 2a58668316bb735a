//! Request methods (RFC 9110 section 9) and their properties.

/// A request method. Anything that is not listed is [`Method::Other`]; its bytes are in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Method {
    /// RFC 9110 9.3.1.
    #[default]
    Get,
    /// RFC 9110 9.3.2. Its response never has a body.
    Head,
    /// RFC 9110 9.3.3.
    Post,
    /// RFC 9110 9.3.4.
    Put,
    /// RFC 9110 9.3.5.
    Delete,
    /// RFC 9110 9.3.6: a 2xx answer turns the connection into a tunnel.
    Connect,
    /// RFC 9110 9.3.7.
    Options,
    /// RFC 9110 9.3.8.
    Trace,
    /// RFC 5789.
    Patch,
    /// Any other token.
    Other,
}

impl Method {
    /// The method called `name`. Names are case-sensitive (RFC 9110 9.1): `get` is
    /// [`Method::Other`].
    pub fn from_bytes(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Whether `name` differs from a listed method only in its case, like `get`. Some servers treat
    /// `get` as GET, so a rule about GET would not see such a request.
    pub fn is_miscased(name: &[u8]) -> bool {
        Self::from_bytes(name) == Self::Other
            && Self::from_bytes(&name.to_ascii_uppercase()) != Self::Other
    }

    /// Whether a repeated request has the same effect as one (RFC 9110 9.2.2). Then a proxy may
    /// send it again when a connection closed before the response.
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch | Self::Connect | Self::Other)
    }
}
