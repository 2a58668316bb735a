//! The messages of xDS that the proxy sends and reads: `envoy.service.discovery.v3`.
//!
//! Unknown fields are skipped, as protobuf asks for.

use super::protobuf::{Fields, Malformed, Value, put_bytes, put_nested, put_number};

/// The method of the state of the world.
pub const STATE_OF_THE_WORLD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// The method of changes alone.
pub const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The type of a resource with its name and version around it.
const WRAPPED: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// The status of a refusal: INVALID_ARGUMENT.
const REFUSED: u64 = 3;

/// This proxy, as the server knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The id.
    pub id: String,
    /// The cluster.
    pub cluster: String,
    /// The region, zone and sub-zone.
    pub locality: [String; 3],
    /// The version of the proxy.
    pub version: &'static str,
}

impl Node {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, 1, self.id.as_bytes());
        put_bytes(out, 2, self.cluster.as_bytes());
        if !self.locality[0].is_empty() {
            put_nested(out, 4, |out| {
                for (part, number) in self.locality.iter().zip(1..) {
                    put_bytes(out, number, part.as_bytes());
                }
            });
        }
        put_bytes(out, 6, b"ringway");
        put_bytes(out, 7, self.version.as_bytes());
    }
}

/// A request of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The node. Only the first request of a stream has it.
    pub node: Option<&'a Node>,
    /// The type of the resources.
    pub type_url: &'a str,
    /// The version that was accepted. Not for changes.
    pub version: &'a str,
    /// The names: all of them, or those that are added if only changes are sent.
    pub names: Vec<&'a str>,
    /// The names that are not wanted any more. For changes only.
    pub unsubscribed: Vec<&'a str>,
    /// The resources that are known, each with its version. For changes only.
    pub known: Vec<(&'a str, &'a str)>,
    /// The nonce of the response that this request answers.
    pub nonce: &'a str,
    /// The reason why this response is refused.
    pub refusal: Option<&'a str>,
}

impl Request<'_> {
    /// The bytes of a `DiscoveryRequest`.
    pub fn state_of_the_world(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, self.version.as_bytes());
        self.put_node(&mut out, 2);
        self.names.iter().for_each(|name| put_bytes(&mut out, 3, name.as_bytes()));
        put_bytes(&mut out, 4, self.type_url.as_bytes());
        put_bytes(&mut out, 5, self.nonce.as_bytes());
        self.put_refusal(&mut out, 6);
        out
    }

    /// The bytes of a `DeltaDiscoveryRequest`.
    pub fn delta(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put_node(&mut out, 1);
        put_bytes(&mut out, 2, self.type_url.as_bytes());
        self.names.iter().for_each(|name| put_bytes(&mut out, 3, name.as_bytes()));
        self.unsubscribed.iter().for_each(|name| put_bytes(&mut out, 4, name.as_bytes()));
        for (name, version) in &self.known {
            put_nested(&mut out, 5, |out| {
                put_bytes(out, 1, name.as_bytes());
                put_bytes(out, 2, version.as_bytes());
            });
        }
        put_bytes(&mut out, 6, self.nonce.as_bytes());
        self.put_refusal(&mut out, 7);
        out
    }

    fn put_node(&self, out: &mut Vec<u8>, field: u8) {
        if let Some(node) = self.node {
            put_nested(out, field, |out| node.put(out));
        }
    }

    fn put_refusal(&self, out: &mut Vec<u8>, field: u8) {
        if let Some(why) = self.refusal {
            put_nested(out, field, |out| {
                put_number(out, 1, REFUSED);
                put_bytes(out, 2, why.as_bytes());
            });
        }
    }
}

/// A resource of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resource<'a> {
    /// The name. Empty if only the resource itself has it.
    pub name: &'a str,
    /// The version. Empty if only the response has one.
    pub version: &'a str,
    /// The type.
    pub type_url: &'a str,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// A response, of either form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response<'a> {
    /// The version of all resources.
    pub version: &'a str,
    /// The type of the resources.
    pub type_url: &'a str,
    /// The nonce, which the answer to this response has.
    pub nonce: &'a str,
    /// The resources: all of them, or the changed ones.
    pub resources: Vec<Resource<'a>>,
    /// The names of removed resources. For changes only.
    pub removed: Vec<&'a str>,
    /// The number of further resources and names. An empty one takes few bytes of a message, but
    /// many of the memory.
    pub more: usize,
}

impl<'a> Response<'a> {
    /// Keeps one more resource or name if there are fewer than `max`, and else counts it.
    fn keep(&mut self, max: usize, keep: impl FnOnce(&mut Self)) {
        match self.resources.len() + self.removed.len() < max {
            true => keep(self),
            false => self.more += 1,
        }
    }

    /// Reads a `DiscoveryResponse`, and keeps `max` resources at most.
    ///
    /// # Errors
    /// If it is no such message.
    pub fn state_of_the_world(message: &'a [u8], max: usize) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, Value::Bytes(version)) => read.version = text(version)?,
                (2, Value::Bytes(any)) => {
                    let (type_url, bytes) = any_of(any)?;
                    let resource = match type_url {
                        WRAPPED => resource(bytes)?,
                        _ => Resource { type_url, bytes, ..Resource::default() },
                    };
                    read.keep(max, |read| read.resources.push(resource));
                }
                (4, Value::Bytes(url)) => read.type_url = text(url)?,
                (5, Value::Bytes(nonce)) => read.nonce = text(nonce)?,
                _ => {}
            }
        }
        Ok(read)
    }

    /// Reads a `DeltaDiscoveryResponse`, and keeps `max` resources and names at most.
    ///
    /// # Errors
    /// If it is no such message.
    pub fn delta(message: &'a [u8], max: usize) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, Value::Bytes(version)) => read.version = text(version)?,
                (2, Value::Bytes(bytes)) => {
                    let resource = resource(bytes)?;
                    read.keep(max, |read| read.resources.push(resource));
                }
                (4, Value::Bytes(url)) => read.type_url = text(url)?,
                (5, Value::Bytes(nonce)) => read.nonce = text(nonce)?,
                (6, Value::Bytes(name)) => {
                    let name = text(name)?;
                    read.keep(max, |read| read.removed.push(name));
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

fn any_of(message: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let (mut url, mut bytes) = ("", &[][..]);
    for field in Fields::of(message) {
        match field? {
            (1, Value::Bytes(found)) => url = text(found)?,
            (2, Value::Bytes(found)) => bytes = found,
            _ => {}
        }
    }
    Ok((url, bytes))
}

fn resource(message: &[u8]) -> Result<Resource<'_>, Malformed> {
    let mut read = Resource::default();
    for field in Fields::of(message) {
        match field? {
            (1, Value::Bytes(version)) => read.version = text(version)?,
            (2, Value::Bytes(any)) => (read.type_url, read.bytes) = any_of(any)?,
            (3, Value::Bytes(name)) => read.name = text(name)?,
            _ => {}
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_fields_of_both_forms() {
        let node = Node { id: "n".to_owned(), ..Node::default() };
        let request = Request {
            node: Some(&node),
            type_url: "t",
            version: "1",
            names: vec!["a", "b"],
            unsubscribed: vec!["c"],
            known: vec![("a", "7")],
            nonce: "x",
            refusal: Some("no"),
        };
        let node = b"\x0a\x01n\x32\x07ringway";
        let all = [b"\x0a\x011\x12\x0c", &node[..], b"\x1a\x01a\x1a\x01b\x22\x01t\x2a\x01x"];
        let refusal = b"\x08\x03\x12\x02no";
        assert_eq!(
            request.state_of_the_world(),
            [&all.concat()[..], b"\x32\x06", refusal].concat()
        );
        let changes = [
            b"\x0a\x0c",
            &node[..],
            b"\x12\x01t\x1a\x01a\x1a\x01b\x22\x01c\x2a\x06\x0a\x01a\x12\x017\x32\x01x\x3a\x06",
            refusal,
        ];
        assert_eq!(request.delta(), changes.concat());
    }

    #[test]
    fn responses_are_read_in_both_forms() {
        let any = b"\x0a\x01t\x12\x02ab";
        let all = [b"\x0a\x011\x12\x07", &any[..], b"\x22\x01t\x2a\x01x"].concat();
        let one = Resource { type_url: "t", bytes: b"ab", ..Resource::default() };
        let read = Response::state_of_the_world(&all, 9).unwrap();
        assert_eq!((read.version, read.nonce, read.type_url), ("1", "x", "t"));
        assert_eq!(read.resources, [one]);
        let wrapped = [b"\x0a\x017\x12\x07", &any[..], b"\x1a\x01n"].concat();
        let changes = [b"\x12\x0f", &wrapped[..], b"\x22\x01t\x2a\x01x\x32\x01r"].concat();
        let read = Response::delta(&changes, 9).unwrap();
        assert_eq!(read.resources, [Resource { name: "n", version: "7", ..one }]);
        assert_eq!(read.removed, ["r"]);
        for max in 0..3 {
            let (all, changes) = ([&all[..], &all].concat(), [&changes[..], &changes].concat());
            let read = Response::state_of_the_world(&all, max).unwrap();
            assert_eq!((read.resources.len(), read.more), (max, 2 - max));
            let read = Response::delta(&changes, max).unwrap();
            assert_eq!((read.resources.len() + read.removed.len(), read.more), (max, 4 - max));
        }
        for bytes in [&b"\x0a\x7f"[..], b"\x0a\x01\xff", b"\x12\x02\x0a\x09", b"\xff"] {
            assert!(Response::state_of_the_world(bytes, 9).is_err(), "{bytes:?}");
            assert!(Response::delta(bytes, 9).is_err(), "{bytes:?}");
        }
    }
}
