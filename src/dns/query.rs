//! Queries for addresses, and the responses of DNS servers.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

/// A family of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4: A records.
    Ipv4,
    /// IPv6: AAAA records.
    Ipv6,
}

impl Family {
    /// Both families, in the order of [`Family::index`].
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// Whether `ip` is of this family.
    pub fn includes(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::Ipv4)
    }

    fn records(self) -> RecordType {
        match self {
            Self::Ipv4 => RecordType::A,
            Self::Ipv6 => RecordType::AAAA,
        }
    }
}

/// The response to a query for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The addresses, and how many seconds they are valid.
    Addresses(Vec<IpAddr>, u32),
    /// The name does not exist, or it has no address of the family (RFC 2308).
    None,
    /// The response did not fit into a datagram. The query must be sent again over TCP.
    Truncated,
    /// The server did not answer the query. The text is the reason.
    Failed(String),
}

/// Encodes a query for the addresses of `name`. Returns `None` if `name` is not a DNS name.
pub fn query(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut asked = Name::from_utf8(name).ok()?;
    asked.set_fqdn(true);
    let mut query = Message::query();
    query.metadata.id = id;
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(asked, family.records()));
    query.to_vec().ok()
}

/// Reads the response `bytes` to `query`, a message that [`query`] has encoded.
pub fn response(bytes: &[u8], query: &[u8], family: Family) -> Response {
    let unreadable = || Response::Failed("it cannot be read".to_owned());
    let Ok(query) = Message::from_vec(query) else { return unreadable() };
    let Ok(response) = Message::from_vec(bytes) else { return unreadable() };
    if response.metadata.message_type != MessageType::Response || response.queries != query.queries
    {
        return Response::Failed("it belongs to another question".to_owned());
    }
    let addresses = |record: &hickory_proto::rr::Record| match &record.data {
        RData::A(ip) => Some(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
        _ => None,
    };
    let found = response.answers.iter().filter_map(addresses);
    let found: Vec<_> = found.filter(|ip| family.includes(*ip)).collect();
    match response.metadata.response_code {
        ResponseCode::NoError if response.metadata.truncation => Response::Truncated,
        ResponseCode::NoError if !found.is_empty() => {
            let valid_s = response.answers.iter().map(|record| record.ttl).min();
            Response::Addresses(found, valid_s.unwrap_or_default())
        }
        ResponseCode::NoError | ResponseCode::NXDomain => Response::None,
        code => Response::Failed(code.to_string()),
    }
}

/// Whether the response means that its server cannot answer the query, but another server may:
/// SERVFAIL, NOTIMP or REFUSED.
pub fn is_refusal(response: &[u8]) -> bool {
    const CODE_BITS: u8 = 0x0f;
    response.get(3).is_some_and(|flags| matches!(flags & CODE_BITS, 2 | 4 | 5))
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, CNAME};

    use super::*;

    fn answered(change: impl FnOnce(&mut Message)) -> Response {
        let asked = query(7, "Shop.test", Family::Ipv4).unwrap();
        let mut message = Message::from_vec(&asked).unwrap();
        message.metadata.message_type = MessageType::Response;
        change(&mut message);
        let bytes = message.to_vec().unwrap();
        assert_eq!(is_refusal(&bytes), message.metadata.response_code == ResponseCode::ServFail);
        response(&bytes, &asked, Family::Ipv4)
    }

    #[test]
    fn responses_are_addresses_none_or_no_answer() {
        let name = |text| Name::from_ascii(text).unwrap();
        let said = answered(|message| {
            let alias = RData::CNAME(CNAME(name("other.test.")));
            message.add_answer(Record::from_rdata(name("shop.test."), 9, alias));
            let address = RData::A(A([10, 0, 0, 1].into()));
            message.add_answer(Record::from_rdata(name("other.test."), 30, address));
        });
        assert_eq!(said, Response::Addresses(vec![[10, 0, 0, 1].into()], 9));
        assert_eq!(answered(|_| {}), Response::None);
        let code = |code| answered(|message| message.metadata.response_code = code);
        assert_eq!(code(ResponseCode::NXDomain), Response::None);
        assert!(matches!(code(ResponseCode::ServFail), Response::Failed(_)));
        assert_eq!(answered(|message| message.metadata.truncation = true), Response::Truncated);
        let other = Query::query(name("else.test."), RecordType::A);
        let said = answered(|message| message.queries = vec![other]);
        assert!(matches!(said, Response::Failed(_)), "{said:?}");
        let asked = query(7, "shop.test", Family::Ipv6).unwrap();
        assert!(matches!(response(b"x", &asked, Family::Ipv6), Response::Failed(_)));
        assert!(matches!(response(&asked, &asked, Family::Ipv6), Response::Failed(_)));
    }
}
