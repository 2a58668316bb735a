//! The operators of Envoy's access log formats, such as `%RESPONSE_CODE%`.

use super::TextError;
use super::field::{Field, Plain, Value};
use super::headers::{Wanted, is_secret};
use super::parse;
use super::record::Record;
use super::strftime::{self, TimePart};
use super::text::{put, put_escaped, put_ip, put_number, put_socket_address};
use crate::grpc::Code;

/// A part of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(Box<[u8]>),
    Operator { operator: Operator, max: Option<usize> },
}

/// A value of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// A value by its own name.
    Field(Field),
    /// The first of two fields that the exchange has.
    Either(Field, Field),
    StartTime(Vec<TimePart>),
    DurationMs,
    EndpointMs,
    RouteName,
    PeerWithoutPort,
    ClientWithPort,
    GrpcName,
    /// Always `-`: the proxy does not have this value.
    Nothing,
}

/// Operators without arguments that are a value under another name.
const PLAIN: &[(&str, Plain)] = &[
    ("PROTOCOL", Plain::Protocol),
    ("RESPONSE_CODE", Plain::Status),
    ("RESPONSE_FLAGS", Plain::Flags),
    ("RESPONSE_CODE_DETAILS", Plain::Detail),
    ("BYTES_RECEIVED", Plain::ReceivedBytes),
    ("BYTES_SENT", Plain::SentBytes),
    ("UPSTREAM_HOST", Plain::Endpoint),
    ("UPSTREAM_REMOTE_ADDRESS", Plain::Endpoint),
    ("UPSTREAM_CLUSTER", Plain::Service),
    ("UPSTREAM_CLUSTER_RAW", Plain::Service),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Plain::Attempts),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Plain::Client),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Plain::Peer),
    ("DOWNSTREAM_LOCAL_ADDRESS", Plain::Original),
    ("DOWNSTREAM_PEER_URI_SAN", Plain::Identity),
    ("GRPC_STATUS_NUMBER", Plain::GrpcStatus),
    ("TRACE_ID", Plain::TraceId),
    ("STREAM_ID", Plain::RequestId),
];

/// Other operators without arguments.
const OTHER: &[(&str, Operator)] = &[
    ("DURATION", Operator::DurationMs),
    ("RESPONSE_DURATION", Operator::EndpointMs),
    ("ROUTE_NAME", Operator::RouteName),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Operator::PeerWithoutPort),
    ("DOWNSTREAM_REMOTE_ADDRESS", Operator::ClientWithPort),
    ("GRPC_STATUS", Operator::GrpcName),
    ("CONNECTION_TERMINATION_DETAILS", Operator::Nothing),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Operator::Nothing),
    ("UPSTREAM_LOCAL_ADDRESS", Operator::Nothing),
    ("REQUESTED_SERVER_NAME", Operator::Nothing),
];

/// Parses a format of text and operators.
pub(super) fn parse(format: &str) -> Result<Vec<Piece>, TextError> {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut at = 0;
    while let Some(found) = format[at..].find('%') {
        literal.extend_from_slice(&format.as_bytes()[at..at + found]);
        at += found;
        if format[at..].starts_with("%%") {
            literal.push(b'%');
            at += 2;
            continue;
        }
        let Some(len) = end_of(&format[at + 1..]) else {
            let message = format!("this operator has no end: {}", &format[at..]);
            return Err(TextError::new(at, message, "write % after it; a plain % is %%"));
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
        }
        pieces.push(operator(&format[at + 1..at + 1 + len], at)?);
        at += len + 2;
    }
    literal.extend_from_slice(&format.as_bytes()[at..]);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces)
}

/// The length of an operator, up to its closing `%`. A `%` in its parentheses does not close it.
fn end_of(text: &str) -> Option<usize> {
    let percent = text.find('%')?;
    match text.find('(').filter(|open| *open < percent) {
        Some(open) => {
            let close = open + text[open..].find(')')?;
            text[close..].find('%').map(|end| close + end)
        }
        None => Some(percent),
    }
}

fn operator(text: &str, at: usize) -> Result<Piece, TextError> {
    let (text, max) = match text.rsplit_once(':') {
        Some((before, max)) if before.ends_with(')') || !text.contains('(') => {
            let max = max.parse().ok().filter(|max| *max > 0).ok_or_else(|| {
                let message = format!("{max:?} is not a length");
                TextError::new(at, message, format!("write %{before}:40%"))
            })?;
            (before, Some(max))
        }
        _ => (text, None),
    };
    let (name, argument) = match text.split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')').unwrap_or(rest))),
        None => (text, None),
    };
    let operator = match (name, argument) {
        ("START_TIME", argument) => match argument {
            Some(format) if !format.is_empty() => Operator::StartTime(strftime::parse(format, at)?),
            _ => Operator::Field(Field::Plain(Plain::Time)),
        },
        ("REQ" | "REQUEST_HEADER", Some(names)) => header(names, at, request_field)?,
        ("RESP" | "RESPONSE_HEADER", Some(names)) => header(names, at, response_field)?,
        ("REQ" | "RESP", None) => {
            let help = format!("write %{name}(X-USER)%");
            return Err(TextError::new(at, format!("%{name}% needs the name of a field"), help));
        }
        (name, argument) => {
            let operator = plain(name).ok_or_else(|| unknown(name, at))?;
            if argument.is_some_and(|argument| !argument.is_empty()) {
                let message = format!("%{name}% takes no argument");
                return Err(TextError::new(at, message, format!("write %{name}%")));
            }
            operator
        }
    };
    if let Operator::Field(Field::Request(name) | Field::Response(name)) = &operator {
        no_secret(name, at)?;
    }
    Ok(Piece::Operator { operator, max })
}

fn plain(name: &str) -> Option<Operator> {
    let of_envoy = PLAIN.iter().find(|(known, _)| *known == name);
    let of_envoy = of_envoy.map(|(_, plain)| Operator::Field(Field::Plain(*plain)));
    let other = || OTHER.iter().find(|(known, _)| *known == name).map(|(_, it)| it.clone());
    of_envoy.or_else(other).or_else(|| parse::field(name).map(Operator::Field))
}

fn unknown(name: &str, at: usize) -> TextError {
    let message = format!("there is no operator %{name}%");
    let known = PLAIN.iter().map(|(known, _)| *known).chain(OTHER.iter().map(|(known, _)| *known));
    let rated = known.map(|known| (strsim::jaro_winkler(known, &name.to_uppercase()), known));
    let best = rated.max_by(|one, other| one.0.total_cmp(&other.0));
    let help = match best.filter(|(rate, _)| *rate > 0.9) {
        Some((_, known)) => format!("write %{known}%; a plain % is %%"),
        None => {
            "write an operator of Envoy, such as %RESPONSE_CODE%, or the name of a value, such \
                 as %service%; a plain % is %%"
                .to_owned()
        }
    };
    TextError::new(at, message, help)
}

fn header(names: &str, at: usize, of: fn(&str) -> Operator) -> Result<Operator, TextError> {
    let (first, second) = match names.split_once('?') {
        Some((first, second)) => (first, Some(second)),
        None => (names, None),
    };
    for name in [Some(first), second].into_iter().flatten() {
        let plain = name.strip_prefix(':').unwrap_or(name);
        if !crate::message::is_token(plain.as_bytes()) {
            let message = format!("{name:?} is not the name of a header field");
            return Err(TextError::new(at, message, "write %REQ(X-USER)%"));
        }
        no_secret(name, at)?;
    }
    Ok(match (of(first), second.map(of)) {
        (Operator::Field(first), Some(Operator::Field(second))) => Operator::Either(first, second),
        (first, _) => first,
    })
}

/// Refuses a field that may carry a secret.
pub(super) fn no_secret(name: &str, at: usize) -> Result<(), TextError> {
    if is_secret(name.as_bytes()) {
        let message = format!("{name} may carry a secret, so no log and no trace has it");
        let help = "leave it out; `identity` names the client of a mesh";
        return Err(TextError::new(at, message, help));
    }
    Ok(())
}

fn request_field(name: &str) -> Operator {
    Operator::Field(match name.to_ascii_lowercase().as_str() {
        ":method" => Field::Plain(Plain::Method),
        ":path" => Field::Plain(Plain::Target),
        ":authority" | "host" => Field::Plain(Plain::Authority),
        ":scheme" => Field::Plain(Plain::Scheme),
        "user-agent" => Field::Plain(Plain::UserAgent),
        "x-forwarded-for" => Field::Plain(Plain::ForwardedFor),
        "x-request-id" => Field::Plain(Plain::RequestId),
        name => Field::Request(name.into()),
    })
}

fn response_field(name: &str) -> Operator {
    match name.to_ascii_lowercase().as_str() {
        ":status" => Operator::Field(Field::Plain(Plain::Status)),
        "x-envoy-upstream-service-time" => Operator::EndpointMs,
        name => Operator::Field(Field::Response(name.into())),
    }
}

impl Piece {
    /// Adds the header fields that the piece shows.
    pub(super) fn want(&self, wanted: &mut Wanted) {
        let mut want = |field: &Field| match field {
            Field::Request(name) => wanted.request.push(name.clone()),
            Field::Response(name) => wanted.response.push(name.clone()),
            Field::Plain(_) => {}
        };
        match self {
            Self::Operator { operator: Operator::Field(field), .. } => want(field),
            Self::Operator { operator: Operator::Either(first, second), .. } => {
                want(first);
                want(second);
            }
            _ => {}
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        match self {
            Self::Literal(text) => out.extend_from_slice(text),
            Self::Operator { operator, max } => {
                let start = out.len();
                operator.write(out, record);
                if let Some(max) = max {
                    cut(out, start + max);
                }
            }
        }
    }
}

/// Cuts `out` at `end`, but not in the middle of `\xHH`.
fn cut(out: &mut Vec<u8>, end: usize) {
    if out.len() > end {
        let escape = (1..4).find(|back| end >= *back && out[end - back] == b'\\');
        let len = escape.filter(|back| *back < 4).map_or(end, |back| end - back);
        out.truncate(len);
    }
}

impl Operator {
    fn write(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        let millis = |out: &mut Vec<u8>, us: Option<u64>| match us {
            Some(us) => put_number(out, us / 1000),
            None => out.push(b'-'),
        };
        match self {
            Self::Field(field) => put_value(out, record, &field.of(record)),
            Self::Either(first, second) => match first.of(record) {
                Value::Missing => put_value(out, record, &second.of(record)),
                value => put_value(out, record, &value),
            },
            Self::StartTime(parts) => strftime::write(out, parts, record.began_unix_us),
            Self::DurationMs => put_number(out, record.duration_us / 1000),
            Self::EndpointMs => millis(out, record.endpoint_duration_us),
            Self::RouteName => put_escaped(out, record.route.as_bytes()),
            Self::PeerWithoutPort => match record.peer {
                Some(peer) => put_ip(out, &peer.ip().to_canonical()),
                None => out.push(b'-'),
            },
            Self::ClientWithPort => match (record.client, record.peer) {
                (Some(client), Some(peer)) if client == peer.ip().to_canonical() => {
                    put_socket_address(out, &peer);
                }
                (Some(client), _) => put(out, format_args!("{client}:0")),
                (None, _) => out.push(b'-'),
            },
            Self::GrpcName => match record.grpc_status {
                Some(code) => match Code::names().nth(usize::from(code)) {
                    Some(name) => out.extend_from_slice(name.as_bytes()),
                    None => put_number(out, u64::from(code)),
                },
                None => out.push(b'-'),
            },
            Self::Nothing => out.push(b'-'),
        }
    }
}

fn put_value(out: &mut Vec<u8>, record: &Record<'_>, value: &Value<'_>) {
    match value {
        Value::Missing => out.push(b'-'),
        Value::Text(text) => put_escaped(out, text),
        Value::Number(number) => put_number(out, *number),
        Value::Micros(us) => put_number(out, us / 1000),
        Value::Bool(is_so) => put(out, format_args!("{is_so}")),
        Value::Ip(ip) => put_ip(out, ip),
        Value::Flags => out.extend_from_slice(record.flags().as_bytes()),
    }
}
