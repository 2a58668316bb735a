//! DNS names whose addresses are the endpoints of a service.

use std::fmt;

/// The address families for which a name is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// Only IPv4.
    Ipv4,
    /// Only IPv6.
    Ipv6,
}

/// The name whose addresses are the endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DnsName {
    /// `HOST:PORT`.
    pub address: Box<str>,
    /// The address families that are used.
    pub families: Families,
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)?;
        match self.families {
            Families::Any => Ok(()),
            Families::Ipv4 => f.write_str(" (ipv4)"),
            Families::Ipv6 => f.write_str(" (ipv6)"),
        }
    }
}
