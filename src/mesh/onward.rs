//! The server name with which a proxy opens a QUIC connection to the proxy of a workload. Over TCP,
//! the kernel tells the original destination of a captured connection. QUIC connections go to the
//! proxy itself, so the name tells it.

use std::fmt;

/// The end of the names. The top-level domain is for private use.
const SUFFIX: &str = ".mesh.ringway.internal";

/// The port of the workload, and how the requests go on to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onward {
    /// The port of the workload.
    pub port: u16,
    /// Whether the workload speaks HTTP/2.
    pub http2: bool,
}

impl fmt::Display for Onward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.http2 { "http2" } else { "http" };
        write!(f, "{protocol}-{}{SUFFIX}", self.port)
    }
}

impl Onward {
    /// Reads a server name. `None` if it has another form.
    pub fn parse(name: &str) -> Option<Self> {
        let (protocol, port) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let http2 = match protocol {
            "http" => false,
            "http2" => true,
            _ => return None,
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Self { port, http2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for onward in [Onward { port: 1, http2: false }, Onward { port: 65535, http2: true }] {
            assert_eq!(Onward::parse(&onward.to_string()), Some(onward));
        }
        for other in [
            "",
            "example.com",
            "http-80.mesh.ringway.internal.",
            "http-0.mesh.ringway.internal",
            "http-70000.mesh.ringway.internal",
            "tcp-80.mesh.ringway.internal",
            "http80.mesh.ringway.internal",
            ".mesh.ringway.internal",
        ] {
            assert_eq!(Onward::parse(other), None, "{other}");
        }
    }
}
