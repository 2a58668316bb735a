//! Sends the HTTP/2 request or the gRPC call of a health check, on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, Uri};

use super::FAREWELL;
use super::http1::{HEAD_BYTES_MAX, USER_AGENT};
use super::probe::{Failed, Link, broken};
use crate::grpc::{Code, write_timeout};
use crate::health::Reason;
use crate::health::grpc;
use crate::health::grpc::Serving;

/// The maximum size of a HealthCheckResponse message. A message of the current version has two
/// bytes; a later version may have more.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Sends a request, and returns its status.
///
/// # Errors
/// If there is no valid response.
pub async fn status(
    link: Link,
    secure: bool,
    method: &str,
    host: &str,
    path: &str,
    limit: Duration,
) -> Result<u16, Failed> {
    let mut requests = begin(link, limit).await?;
    let mut request = request(secure, host, path)?;
    *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap_or_default();
    let (response, _) = requests.send_request(request, true).map_err(broken)?;
    Ok(response.await.map_err(broken)?.status().as_u16())
}

/// Calls `grpc.health.v1.Health/Check` for `service`.
///
/// # Errors
/// If the response does not report SERVING, or if there is no valid response.
pub async fn call(
    link: Link,
    secure: bool,
    authority: &str,
    service: &str,
    limit: Duration,
) -> Result<(), Failed> {
    let mut requests = begin(link, limit).await?;
    let mut request = request(secure, authority, grpc::PATH)?;
    *request.method_mut() = Method::POST;
    let mut until = Vec::new();
    write_timeout(&mut until, limit);
    for (name, value) in
        [("content-type", &b"application/grpc"[..]), ("te", b"trailers"), ("grpc-timeout", &until)]
    {
        let value = http::HeaderValue::from_bytes(value).map_err(broken)?;
        request.headers_mut().insert(name, value);
    }
    let (response, mut body): (_, SendStream<Bytes>) =
        requests.send_request(request, false).map_err(broken)?;
    body.send_data(grpc::request(service).into(), true).map_err(broken)?;
    let (message, code) = answer(response.await.map_err(broken)?).await?;
    verdict(code, &message, service)
}

/// Opens an HTTP/2 connection. A separate task drives it. The task closes it after its last use, or
/// shortly after `limit` at the latest.
async fn begin(link: Link, limit: Duration) -> Result<SendRequest<Bytes>, Failed> {
    let Link { stream, own, .. } = link;
    let mut builder = client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_BYTES_MAX as u32);
    let (requests, connection) = builder.handshake(stream).await.map_err(broken)?;
    tokio::spawn(async move {
        // Ignore the error here: the task that sent the request gets the same error.
        tokio::time::timeout(limit + FAREWELL, connection).await.ok();
        drop(own);
    });
    requests.ready().await.map_err(broken)
}

fn request(secure: bool, authority: &str, path: &str) -> Result<Request<()>, Failed> {
    let scheme = if secure { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path);
    let request = Request::builder().uri(uri.build().map_err(broken)?);
    request.header("user-agent", USER_AGENT).body(()).map_err(broken)
}

/// Reads the message and the status of a gRPC response.
async fn answer(response: Response<RecvStream>) -> Result<(Vec<u8>, Code), Failed> {
    let (head, mut body) = response.into_parts();
    let is_grpc = head
        .headers
        .get("content-type")
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if head.status.as_u16() != 200 || !is_grpc {
        let status = head.status.as_u16();
        let message = format!("no gRPC is spoken there: an answer with the status {status}");
        return Err(Failed::new(Reason::Status, message));
    }
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data.map_err(broken)?);
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Failed::new(Reason::Broken, "the answer is too large"));
        }
    }
    let trailers = body.trailers().await.map_err(broken)?.unwrap_or_default();
    let code = |fields: &HeaderMap| {
        fields.get("grpc-status").map(|value| Code::from_value(value.as_bytes()))
    };
    // A trailers-only response has the trailers in its head.
    let code = code(&trailers).or_else(|| code(&head.headers));
    Ok((message, code.ok_or_else(|| broken("the answer has no grpc-status"))?))
}

/// The result of a check, from the code and the message of its response.
fn verdict(code: Code, message: &[u8], service: &str) -> Result<(), Failed> {
    if code != Code::OK {
        let why = match code {
            Code::UNIMPLEMENTED => "it has no health service (UNIMPLEMENTED); let it serve \
                grpc.health.v1.Health, or check by tcp"
                .to_owned(),
            Code::NOT_FOUND => format!("it does not know the service {service:?} (NOT_FOUND)"),
            code => format!("the answer's grpc-status is {}", code.number()),
        };
        return Err(Failed::new(Reason::Status, why));
    }
    let says = match grpc::answer(message) {
        Some(Serving::Serving) => return Ok(()),
        Some(Serving::Unknown) => "UNKNOWN".to_owned(),
        Some(Serving::NotServing) => "NOT_SERVING".to_owned(),
        Some(Serving::ServiceUnknown) => "SERVICE_UNKNOWN".to_owned(),
        Some(Serving::Other(number)) => format!("the unknown status {number}"),
        None => return Err(Failed::new(Reason::Broken, "the answer cannot be read")),
    };
    let what = if service.is_empty() { String::new() } else { format!(" of {service}") };
    Err(Failed::new(Reason::NotServing, format!("it says {says}{what}")))
}
