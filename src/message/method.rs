//! Request methods (RFC 9110 section 9) and their properties.

/// A request method. A method that is not listed is [`Method::Other`]; its name is in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Method {
    /// GET (RFC 9110 9.3.1).
    #[default]
    Get,
    /// HEAD (RFC 9110 9.3.2). Its response never has a body.
    Head,
    /// POST (RFC 9110 9.3.3).
    Post,
    /// PUT (RFC 9110 9.3.4).
    Put,
    /// DELETE (RFC 9110 9.3.5).
    Delete,
    /// CONNECT (RFC 9110 9.3.6). A 2xx response turns the connection into a tunnel.
    Connect,
    /// OPTIONS (RFC 9110 9.3.7).
    Options,
    /// TRACE (RFC 9110 9.3.8).
    Trace,
    /// PATCH (RFC 5789).
    Patch,
    /// Any other method, including misspelled ones.
    Other,
}

impl Method {
    /// Returns the method called `name`. Names are case-sensitive (RFC 9110 9.1): `get` is
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
    /// `get` as GET, but a rule for GET would not match such a request.
    pub fn is_miscased(name: &[u8]) -> bool {
        Self::from_bytes(name) == Self::Other
            && Self::from_bytes(&name.to_ascii_uppercase()) != Self::Other
    }

    /// Whether a request asks for no change of the server's state (RFC 9110 9.2.1). So it does no
    /// harm if somebody else sends it again.
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether a repeated request has the same effect as a single one (RFC 9110 9.2.2). A proxy may
    /// send such a request again when a connection closed before the response.
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch | Self::Connect | Self::Other)
    }
}
