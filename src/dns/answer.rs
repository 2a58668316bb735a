//! Answers DNS queries, and decides which ones to forward. No I/O.

use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// The TTL of answers, in seconds. It is short because a reload may change the addresses.
pub const TTL_S: u32 = 5;

/// The virtual addresses of services, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory(HashMap<Box<str>, Vec<IpAddr>>);

impl Directory {
    /// Adds the addresses of a service. A service without addresses gets no entry.
    pub fn add(&mut self, service: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut addresses: Vec<IpAddr> = addresses.into_iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        if !addresses.is_empty() {
            self.0.insert(service.to_ascii_lowercase().into(), addresses);
        }
    }

    fn find(&self, name: &Name) -> Option<&[IpAddr]> {
        let text = name.to_ascii().to_ascii_lowercase();
        self.0.get(text.strip_suffix('.').unwrap_or(&text)).map(Vec::as_slice)
    }
}

/// How to handle a DNS query.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Respond with these bytes.
    Here(Vec<u8>),
    /// Forward the query to a DNS server.
    Elsewhere,
    /// Ignore the bytes, because they are not a DNS query.
    Nothing,
}

/// Decides how to handle the query `bytes`. Responds for services in `directory`.
pub fn answer(bytes: &[u8], directory: &Directory) -> Answer {
    let Ok(query) = Message::from_vec(bytes) else { return Answer::Nothing };
    if query.metadata.message_type != MessageType::Query {
        return Answer::Nothing;
    }
    let [asked] = &query.queries[..] else { return Answer::Elsewhere };
    if query.metadata.op_code != OpCode::Query || asked.query_class() != DNSClass::IN {
        return Answer::Elsewhere;
    }
    let Some(addresses) = directory.find(asked.name()) else { return Answer::Elsewhere };
    let wanted = |address: &&IpAddr| match asked.query_type() {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        // The name exists, but it has no record of the requested type.
        _ => false,
    };
    let record = |address: &IpAddr| {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        };
        Record::from_rdata(asked.name().clone(), TTL_S, data)
    };
    let mut reply = response_to(&query);
    reply.add_answers(addresses.iter().filter(wanted).map(record).collect::<Vec<_>>());
    reply.to_vec().map_or(Answer::Nothing, Answer::Here)
}

/// Returns a SERVFAIL response to the query `bytes`, for a query that no DNS server has answered.
/// The client may try another server. `None` if `bytes` are not a DNS message.
pub fn failure(bytes: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(bytes).ok()?;
    let mut reply = response_to(&query);
    reply.metadata.response_code = ResponseCode::ServFail;
    reply.to_vec().ok()
}

fn response_to(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.metadata.authoritative = true;
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.iter().cloned());
    reply
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;

    use super::*;

    fn directory() -> Directory {
        let mut directory = Directory::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        directory.add("Stock", ["10.9.0.1", "fd09::1", "10.9.0.1"].map(address));
        directory.add("nowhere", []);
        directory
    }

    fn asked(name: &str, kind: RecordType) -> Vec<u8> {
        let mut query = Message::query();
        query.metadata.id = 77;
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        query.to_vec().unwrap()
    }

    #[test]
    fn services_have_their_virtual_addresses_and_nothing_else() {
        for (name, kind, expected) in [
            ("stock.", RecordType::A, Some(vec!["10.9.0.1"])),
            ("STOCK.", RecordType::AAAA, Some(vec!["fd09::1"])),
            ("stock", RecordType::MX, Some(vec![])),
            ("nowhere.", RecordType::A, None),
            ("stock.example.com.", RecordType::A, None),
            (".", RecordType::NS, None),
        ] {
            let said = match answer(&asked(name, kind), &directory()) {
                Answer::Here(bytes) => {
                    let reply = Message::from_vec(&bytes).unwrap();
                    assert_eq!((reply.metadata.id, reply.queries.len()), (77, 1));
                    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
                    let data = reply.answers.iter().map(|record| record.data.to_string());
                    Some(data.collect::<Vec<_>>())
                }
                Answer::Elsewhere => None,
                Answer::Nothing => panic!("{name}"),
            };
            let expected =
                expected.map(|list| list.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>());
            assert_eq!(said, expected, "{name} {kind}");
        }
    }

    #[test]
    fn what_is_no_query_is_not_answered() {
        let query = asked("stock.", RecordType::A);
        let Answer::Here(reply) = answer(&query, &directory()) else { panic!() };
        for bytes in [&reply[..], b"", b"\0", &query[..11]] {
            assert_eq!(answer(bytes, &directory()), Answer::Nothing);
        }
    }
}
