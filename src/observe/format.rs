//! The formats of access log lines.

use super::TextError;
use super::field::{Field, Value};
use super::headers::Wanted;
use super::operators::{self, Piece};
use super::parse;
use super::record::Record;
use super::text::{put, put_json, put_number, put_time};

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

/// Writes a JSON object with all values of `record`, without a line break.
pub fn write_json(out: &mut Vec<u8>, record: &Record<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    put_time(out, record.began_unix_us);
    out.push(b'"');
    let flags = record.flags();
    let texts: [(&str, &[u8]); 14] = [
        ("listener", record.listener.as_bytes()),
        ("route", record.route.as_bytes()),
        ("service", record.service.as_bytes()),
        ("method", record.method),
        ("authority", record.authority),
        ("target", record.target),
        ("protocol", record.protocol.as_bytes()),
        ("response_flags", flags.as_bytes()),
        ("detail", record.detail.as_bytes()),
        ("policy", record.policy.as_bytes()),
        ("identity", record.identity.as_bytes()),
        ("request_id", record.request_id),
        ("user_agent", record.user_agent),
        ("x_forwarded_for", record.forwarded_for),
    ];
    for (key, value) in texts {
        put_key(out, key);
        put_json(out, value);
    }
    put_shown(out, "peer", record.peer);
    put_shown(out, "client", record.client);
    put_shown(out, "endpoint", record.endpoint);
    if record.original.is_some() {
        put_shown(out, "original_destination", record.original);
    }
    let numbers = [
        ("status", Some(u64::from(record.status))),
        ("received_bytes", Some(record.received_bytes)),
        ("sent_bytes", Some(record.sent_bytes)),
        ("duration_us", Some(record.duration_us)),
        ("endpoint_duration_us", record.endpoint_duration_us),
        ("suppressed", Some(record.suppressed).filter(|suppressed| *suppressed > 0)),
        ("attempts", Some(u64::from(record.attempts)).filter(|attempts| *attempts > 1)),
        ("grpc_status", record.grpc_status.map(u64::from)),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            put_key(out, key);
            put_number(out, value);
        }
    }
    if record.tunnel {
        out.extend_from_slice(b",\"tunnel\":true");
    }
    if !record.trace_id.is_empty() {
        put_key(out, "trace_id");
        put_json(out, record.trace_id.as_bytes());
    }
    out.push(b'}');
}

fn put_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes a value whose text is an address.
fn put_shown(out: &mut Vec<u8>, key: &str, value: Option<impl std::fmt::Display>) {
    put_key(out, key);
    match value {
        Some(value) => {
            let start = out.len() + 1;
            put(out, format_args!("\"{value}\""));
            // The path of a Unix socket may have any characters.
            if out[start..out.len() - 1].iter().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
                let text = out[start..out.len() - 1].to_vec();
                out.truncate(start - 1);
                put_json(out, &text);
            }
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
            Value::Ip(ip) => put(out, format_args!("\"{ip}\"")),
            Value::Flags => put_json(out, record.flags().as_bytes()),
        }
    }
    out.push(b'}');
}

#[cfg(test)]
#[path = "format_tests.rs"]
pub(super) mod tests;
