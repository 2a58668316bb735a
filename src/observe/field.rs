//! The values of an exchange by name: the names of filters and of JSON keys.

use std::borrow::Cow;
use std::net::IpAddr;

use super::record::Record;
use crate::matching::split_authority;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, such as a path.
    Text,
    /// A number, such as a status.
    Number,
    /// A duration.
    Duration,
    /// True or false.
    Bool,
    /// An IP address.
    Ip,
    /// The response flags.
    Flags,
}

/// A value of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'r> {
    /// The exchange does not have this value.
    Missing,
    /// Text.
    Text(Cow<'r, [u8]>),
    /// A number.
    Number(u64),
    /// A duration in microseconds.
    Micros(u64),
    /// True or false.
    Bool(bool),
    /// An IP address.
    Ip(IpAddr),
    /// The response flags.
    Flags,
}

/// A value that an exchange has, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A value that every record has a place for.
    Plain(Plain),
    /// A field of the request, by its name in lower case.
    Request(Box<str>),
    /// A field of the response, by its name in lower case.
    Response(Box<str>),
}

macro_rules! plain {
    ($($variant:ident $name:literal $kind:ident $doc:literal;)*) => {
        /// A value that every record has a place for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Plain {
            $(#[doc = $doc] $variant,)*
        }

        impl Plain {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in filters and in JSON.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The type of the value.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }
        }
    };
}

plain! {
    Time "time" Text "The start time.";
    Listener "listener" Text "The name of the listener.";
    Route "route" Text "The name of the rule.";
    Place "route_place" Text "The file and line of the rule.";
    Service "service" Text "The name of the service.";
    Method "method" Text "The method.";
    Authority "authority" Text "The host and port of the request.";
    Host "host" Text "The host of the request, without its port.";
    Target "target" Text "The target, as it was received.";
    Path "path" Text "The path, without its query.";
    Protocol "protocol" Text "HTTP/2, HTTP/1.1, HTTP/1.0 or TCP.";
    Scheme "scheme" Text "http or https.";
    Flags "response_flags" Flags "The response flags.";
    Detail "detail" Text "The reason of the flag.";
    Policy "policy" Text "The rule that denied the exchange.";
    Identity "identity" Text "The SPIFFE ID of the client.";
    RequestId "request_id" Text "The value of x-request-id.";
    UserAgent "user_agent" Text "The value of user-agent.";
    ForwardedFor "x_forwarded_for" Text "The value of x-forwarded-for.";
    TraceId "trace_id" Text "The id of the trace.";
    Peer "peer" Text "The address and port of the peer.";
    Client "client" Ip "The address of the client, for policies.";
    Endpoint "endpoint" Text "The address of the endpoint.";
    Original "original_destination" Text "The original destination of a captured connection.";
    Status "status" Number "The status. 0 if none was sent.";
    ReceivedBytes "received_bytes" Number "Body bytes from the client.";
    SentBytes "sent_bytes" Number "Body bytes to the client.";
    DurationUs "duration_us" Number "The duration in microseconds.";
    Duration "duration" Duration "The duration.";
    EndpointDurationUs "endpoint_duration_us" Number "The duration at the endpoint.";
    EndpointDuration "endpoint_duration" Duration "The duration at the endpoint.";
    Suppressed "suppressed" Number "The number of lines that were left out before.";
    Attempts "attempts" Number "The number of attempts.";
    Tunnel "tunnel" Bool "Whether the request opened a tunnel.";
    GrpcStatus "grpc_status" Number "The status of a gRPC call.";
    Failed "failed" Bool "Whether the exchange has failed.";
}

/// Other names of values, for filters: short forms.
const SHORT: &[(&str, Plain)] = &[
    ("flags", Plain::Flags),
    ("source", Plain::Client),
    ("grpc", Plain::GrpcStatus),
    ("bytes_received", Plain::ReceivedBytes),
    ("bytes_sent", Plain::SentBytes),
];

impl Field {
    /// The value called `name`. `None` if there is none.
    pub fn plain(name: &str) -> Option<Plain> {
        let known = Plain::ALL.iter().copied().find(|plain| plain.name() == name);
        known.or_else(|| SHORT.iter().find(|(short, _)| *short == name).map(|(_, plain)| *plain))
    }

    /// The name of the field as it is written in filters.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Plain(plain) => plain.name().into(),
            Self::Request(name) => format!("request.headers.{name}").into(),
            Self::Response(name) => format!("response.headers.{name}").into(),
        }
    }

    /// The type of the value.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Plain(plain) => plain.kind(),
            Self::Request(_) | Self::Response(_) => Kind::Text,
        }
    }

    /// The value in `record`.
    pub fn of<'r>(&self, record: &Record<'r>) -> Value<'r> {
        let header = |value: Option<&'r [u8]>| value.map_or(Value::Missing, text);
        match self {
            Self::Plain(plain) => plain.of(record),
            Self::Request(name) => header(record.request_headers.and_then(|copy| copy.value(name))),
            Self::Response(name) => {
                header(record.response_headers.and_then(|copy| copy.value(name)))
            }
        }
    }
}

fn text(value: &[u8]) -> Value<'_> {
    Value::Text(value.into())
}

fn shown(value: Option<impl ToString>) -> Value<'static> {
    value.map_or(Value::Missing, |value| Value::Text(value.to_string().into_bytes().into()))
}

impl Plain {
    /// The value in `record`.
    pub fn of<'r>(self, record: &Record<'r>) -> Value<'r> {
        let number = |value: Option<u64>| value.map_or(Value::Missing, Value::Number);
        match self {
            Self::Time => {
                let mut time = Vec::new();
                super::text::put_time(&mut time, record.began_unix_us);
                Value::Text(time.into())
            }
            Self::Listener => text(record.listener.as_bytes()),
            Self::Route => text(record.route.as_bytes()),
            Self::Place => text(record.place.as_bytes()),
            Self::Service => text(record.service.as_bytes()),
            Self::Method => text(record.method),
            Self::Authority => text(record.authority),
            Self::Host => text(split_authority(record.authority).0),
            Self::Target => text(record.target),
            Self::Path => text(record.path),
            Self::Protocol => text(record.protocol.as_bytes()),
            Self::Scheme => text(record.scheme.as_bytes()),
            Self::Flags => Value::Flags,
            Self::Detail => text(record.detail.as_bytes()),
            Self::Policy => text(record.policy.as_bytes()),
            Self::Identity => text(record.identity.as_bytes()),
            Self::RequestId => text(record.request_id),
            Self::UserAgent => text(record.user_agent),
            Self::ForwardedFor => text(record.forwarded_for),
            Self::TraceId => text(record.trace_id.as_bytes()),
            Self::Peer => shown(record.peer),
            Self::Client => record.client.map_or(Value::Missing, Value::Ip),
            Self::Endpoint => shown(record.endpoint),
            Self::Original => shown(record.original),
            Self::Status => Value::Number(u64::from(record.status)),
            Self::ReceivedBytes => Value::Number(record.received_bytes),
            Self::SentBytes => Value::Number(record.sent_bytes),
            Self::DurationUs => Value::Number(record.duration_us),
            Self::Duration => Value::Micros(record.duration_us),
            Self::EndpointDurationUs => number(record.endpoint_duration_us),
            Self::EndpointDuration => {
                record.endpoint_duration_us.map_or(Value::Missing, Value::Micros)
            }
            Self::Suppressed => Value::Number(record.suppressed),
            Self::Attempts => Value::Number(u64::from(record.attempts)),
            Self::Tunnel => Value::Bool(record.tunnel),
            Self::GrpcStatus => number(record.grpc_status.map(u64::from)),
            Self::Failed => Value::Bool(record.failed),
        }
    }
}
