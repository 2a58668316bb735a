//! Ranges of IP addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::matching::PatternError;

/// Bits of an IPv4-mapped IPv6 address before the IPv4 address (RFC 4291 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// A range of addresses (RFC 4632), or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// Parses `10.0.0.0/8`, `2001:db8::/32`, or a single address. An IPv4-mapped IPv6 range becomes
    /// IPv4.
    ///
    /// # Errors
    /// When the text is neither a range nor an address, or has bits set after the prefix.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let wrong = || {
            let help = "write 10.0.0.0/8, 2001:db8::/32, or one address";
            PatternError::new(format!("{text:?} is not a range of IP addresses"), help)
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => {
                let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
                (address, Some(bits.parse().ok().filter(|_: &u8| digits).ok_or_else(wrong)?))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        if bits > width {
            return Err(wrong());
        }
        let written = Self { first: address, bits };
        let masked = written.masked();
        if masked != address {
            let message = format!("{text:?} names an address and a range at once");
            let help = format!("write {masked}/{bits} for the range, {address} for the address");
            return Err(PatternError::new(message, help));
        }
        Ok(match address.to_canonical() {
            first @ IpAddr::V4(_) if address.is_ipv6() && bits >= MAPPED_BITS => {
                Self { first, bits: bits - MAPPED_BITS }
            }
            _ => written,
        })
    }

    /// The first address of the range.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The length of the prefix, in bits.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether the range contains `address`. An IPv4-mapped IPv6 address counts as its IPv4
    /// address. An IPv6 range contains no other IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4()
            && Self { first: address, bits: self.bits }.masked() == self.first
    }

    /// Returns the address with the bits after the prefix set to zero.
    fn masked(&self) -> IpAddr {
        match self.first {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits == if self.first.is_ipv4() { 32 } else { 128 } {
            true => self.first.fmt(f),
            false => write!(f, "{}/{}", self.first, self.bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "1.2.3.4", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::ffff:10.0.0.0/104", "10.2.3.4", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::1", "::1", true),
        ] {
            let network = Network::parse(range).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{range} {address}");
        }
        for text in
            ["", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "a", "1/+8"]
        {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        assert!(Network::parse("10.0.0.1/8").unwrap_err().help.contains("10.0.0.0/8"));
    }
}
