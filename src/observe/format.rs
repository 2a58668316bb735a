//! The formats of access log lines.

use super::TextError;
use super::field::{Field, Value};
use super::headers::Wanted;
use super::operators::{self, Piece};
use super::parse;
use super::record::Record;
use super::text::{put, put_ip, put_json, put_number, put_socket_address, put_time};
use crate::net::Address;

/// The maximum length of a format, in bytes.
pub const FORMAT_BYTES_MAX: usize = 8192;

/// Envoy's default format.
const ENVOY: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
    %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"";

/// Istio's default format.
const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
    %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
    %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
    %REQUESTED_SERVER_NAME% %ROUTE_NAME%";

/// The format of access log lines. A line is valid whatever bytes a client sends: JSON escapes
/// control characters and replaces invalid UTF-8; text escapes both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A JSON object with all values that the exchange has.
    Json,
    /// A JSON object with these values.
    Chosen(Vec<Field>),
    /// Text.
    Text(Vec<Piece>),
}

impl Format {
    /// A JSON object with all values.
    pub const JSON: Self = Self(Kind::Json);

    /// A JSON object with the values in `names`.
    ///
    /// # Errors
    /// If there is no such value, with the index of its name.
    pub fn chosen<'n>(
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Self, (usize, TextError)> {
        let mut fields = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            let field = parse::field(name).ok_or_else(|| (index, parse::unknown(0, name)))?;
            if let Field::Request(name) | Field::Response(name) = &field {
                operators::no_secret(name, 0).map_err(|error| (index, error))?;
            }
            if fields.contains(&field) {
                let message = format!("{} is in the list already", field.name());
                return Err((index, TextError::new(0, message, "leave it out")));
            }
            fields.push(field);
        }
        Ok(Self(Kind::Chosen(fields)))
    }

    /// Parses `json`, `envoy`, `istio`, or text with operators of Envoy.
    ///
    /// # Errors
    /// If there is no such operator or format.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let text = match text {
            "json" => return Ok(Self::JSON),
            "text" | "envoy" => ENVOY,
            "istio" => ISTIO,
            text if text.len() > FORMAT_BYTES_MAX => {
                let message = format!("a format has at most {FORMAT_BYTES_MAX} bytes");
                return Err(TextError::new(0, message, "write a shorter format"));
            }
            text if text.contains('%') => text.trim_end_matches(['\n', '\r']),
            text => {
                let help = "write json, envoy, istio, or text with operators, such as \
                            '%REQ(:METHOD)% %RESPONSE_CODE% %DURATION%'";
                return Err(TextError::new(0, format!("there is no format {text:?}"), help));
            }
        };
        if let Some(at) = text.find(|c: char| c.is_control()) {
            let message = "a line of the access log has no line breaks and control characters";
            return Err(TextError::new(at, message, "write the format in one line"));
        }
        Ok(Self(Kind::Text(operators::parse(text)?)))
    }

    /// Parses text with operators of Envoy. Text without an operator is itself.
    ///
    /// # Errors
    /// If there is no such operator.
    pub fn parse_text(text: &str) -> Result<Self, TextError> {
        Ok(Self(Kind::Text(operators::parse(text)?)))
    }

    /// The header fields that the lines have.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        match &self.0 {
            Kind::Json => {}
            Kind::Chosen(fields) => fields.iter().for_each(|field| match field {
                Field::Request(name) => wanted.request.push(name.clone()),
                Field::Response(name) => wanted.response.push(name.clone()),
                Field::Plain(_) => {}
            }),
            Kind::Text(pieces) => pieces.iter().for_each(|piece| piece.want(&mut wanted)),
        }
        wanted
    }

    /// Appends one line.
    pub fn write_line(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        self.write(out, record);
        out.push(b'\n');
    }

    /// Appends a line without its line break.
    pub fn write(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        match &self.0 {
            Kind::Json => write_json(out, record),
            Kind::Chosen(fields) => write_chosen(out, fields, record),
            Kind::Text(pieces) => pieces.iter().for_each(|piece| piece.write(out, record)),
        }
    }
}

/// A key of a JSON object behind another one, with its punctuation.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// Writes a JSON object with all values of `record`, without a line break.
pub fn write_json(out: &mut Vec<u8>, record: &Record<'_>) {
    put_key(out, "{\"time\":\"");
    put_time(out, record.began_unix_us);
    out.push(b'"');
    let flags = record.flags();
    let texts: [(&str, &[u8]); 14] = [
        (key!("listener"), record.listener.as_bytes()),
        (key!("route"), record.route.as_bytes()),
        (key!("service"), record.service.as_bytes()),
        (key!("method"), record.method),
        (key!("authority"), record.authority),
        (key!("target"), record.target),
        (key!("protocol"), record.protocol.as_bytes()),
        (key!("response_flags"), flags.as_bytes()),
        (key!("detail"), record.detail.as_bytes()),
        (key!("policy"), record.policy.as_bytes()),
        (key!("identity"), record.identity.as_bytes()),
        (key!("request_id"), record.request_id),
        (key!("user_agent"), record.user_agent),
        (key!("x_forwarded_for"), record.forwarded_for),
    ];
    for (key, value) in texts {
        put_key(out, key);
        put_json(out, value);
    }
    put_addresses(out, record);
    let numbers = [
        (key!("status"), Some(u64::from(record.status))),
        (key!("received_bytes"), Some(record.received_bytes)),
        (key!("sent_bytes"), Some(record.sent_bytes)),
        (key!("duration_us"), Some(record.duration_us)),
        (key!("endpoint_duration_us"), record.endpoint_duration_us),
        (key!("suppressed"), Some(record.suppressed).filter(|suppressed| *suppressed > 0)),
        (key!("attempts"), Some(u64::from(record.attempts)).filter(|attempts| *attempts > 1)),
        (key!("grpc_status"), record.grpc_status.map(u64::from)),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            put_key(out, key);
            put_number(out, value);
        }
    }
    if record.tunnel {
        put_key(out, key!("tunnel"));
        out.extend_from_slice(b"true");
    }
    if !record.trace_id.is_empty() {
        put_key(out, key!("trace_id"));
        put_json(out, record.trace_id.as_bytes());
    }
    out.push(b'}');
}

#[inline]
fn put_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(key.as_bytes());
}

fn put_addresses(out: &mut Vec<u8>, record: &Record<'_>) {
    put_quoted(out, key!("peer"), record.peer.as_ref(), put_socket_address);
    put_quoted(out, key!("client"), record.client.as_ref(), put_ip);
    match record.endpoint {
        Some(path @ Address::Unix(_)) => {
            put_key(out, key!("endpoint"));
            // A path may have any characters.
            put_json(out, path.to_string().as_bytes());
        }
        Some(Address::Tcp(address)) => {
            put_quoted(out, key!("endpoint"), Some(address), put_socket_address);
        }
        None => put_quoted(out, key!("endpoint"), None, put_socket_address),
    }
    if record.original.is_some() {
        let original = record.original.as_ref();
        put_quoted(out, key!("original_destination"), original, put_socket_address);
    }
}

/// Writes a value whose text needs no escapes.
fn put_quoted<T>(out: &mut Vec<u8>, key: &str, value: Option<&T>, put: fn(&mut Vec<u8>, &T)) {
    put_key(out, key);
    match value {
        Some(value) => {
            out.push(b'"');
            put(out, value);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn write_chosen(out: &mut Vec<u8>, fields: &[Field], record: &Record<'_>) {
    let mut separator = b'{';
    for field in fields {
        out.push(separator);
        separator = b',';
        put_json(out, field.name().as_bytes());
        out.push(b':');
        match field.of(record) {
            Value::Missing => out.extend_from_slice(b"null"),
            Value::Text(text) => put_json(out, &text),
            Value::Number(number) => put_number(out, number),
            // Milliseconds, as in the text formats.
            Value::Micros(us) => put(out, format_args!("{}.{:03}", us / 1000, us % 1000)),
            Value::Bool(is_so) => put(out, format_args!("{is_so}")),
            Value::Ip(ip) => {
                out.push(b'"');
                put_ip(out, &ip);
                out.push(b'"');
            }
            Value::Flags => put_json(out, record.flags().as_bytes()),
        }
    }
    out.push(b'}');
}

#[cfg(test)]
#[path = "format_tests.rs"]
pub(super) mod tests;
