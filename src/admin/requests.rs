//! The pages about single requests: the stories of the last ones, and taps.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http_body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Receiver};

use super::access::Right;
use crate::observe::Filter;
use crate::observe::body_copy::BODY_BYTES_MAX;
use crate::observe::tap::{OpenTap, TAPS_MAX, Tap, Taps};
use crate::telemetry::status::Status;

/// The maximum number of lines that wait for the reader of a tap. Further lines are dropped and
/// counted.
pub const TAP_LINES_MAX: usize = 1024;

/// The number of bytes of bodies in these lines. A tap with large bodies has room for fewer lines.
const TAP_BODIES_BYTES: usize = 4 * 1024 * 1024;

/// A tap has room for at least this many lines.
const TAP_LINES_MIN: usize = 16;

/// The number of requests that `/requests` shows, if the query has no `limit`.
const SHOWN: usize = 100;

type Pairs = Query<Vec<(String, String)>>;

/// The stories of the requests with the id of the path.
pub(super) async fn request(State(status): State<Status>, Path(id): Path<String>) -> Response {
    let observers = Arc::clone(&status.known().observers);
    let found = observers.stories.with_id(&id);
    if found.is_empty() {
        let text = "no request with this id is among the last ones of this proxy\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    Json(Value::Array(found)).into_response()
}

/// The stories of the last requests: `?failed=true`, `?limit=N`.
pub(super) async fn requests(State(status): State<Status>, Query(query): Pairs) -> Response {
    let (mut limit, mut failed) = (SHOWN, false);
    for (key, value) in query {
        match (key.as_str(), value.as_str(), value.parse()) {
            ("limit", _, Ok(number)) => limit = number,
            ("failed", "true" | "false", _) => failed = value == "true",
            _ => return wrong(&format!("{key}={value}: write failed=true or limit=N")),
        }
    }
    let observers = Arc::clone(&status.known().observers);
    Json(Value::Array(observers.stories.last(limit, failed))).into_response()
}

/// A stream of the exchanges that a filter accepts, one JSON object per line: `?filter=FILTER`,
/// `?header=NAME` for each field whose value is shown, and `?bodies=BYTES` for the beginnings of
/// both bodies.
pub(super) async fn tap(
    State(status): State<Status>,
    Extension(right): Extension<Right>,
    Query(query): Pairs,
) -> Response {
    let (mut filter, mut shown, mut bodies) = (None, Vec::new(), 0);
    for (key, value) in query {
        match key.as_str() {
            "filter" => match Filter::parse(&value) {
                Ok(parsed) => filter = Some(parsed),
                Err(error) => return wrong(&format!("{}; {}", error.message, error.help)),
            },
            "header" => shown.push(value.to_ascii_lowercase()),
            "bodies" => match value.parse() {
                Ok(bytes) if bytes <= BODY_BYTES_MAX => bodies = bytes,
                _ => {
                    return wrong(&format!(
                        "bodies: write a number of bytes up to {BODY_BYTES_MAX}"
                    ));
                }
            },
            _ => return wrong(&format!("{key}: write filter=FILTER, header=NAME or bodies=BYTES")),
        }
    }
    if bodies > 0 && !right.is_proven {
        let text = "bodies are shown only with `token` or `tls` of `admin`, or by a Unix socket\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let taps = Arc::clone(&status.known().observers.taps);
    let room = (TAP_BODIES_BYTES / (2 * bodies).max(1)).clamp(TAP_LINES_MIN, TAP_LINES_MAX);
    let (sender, lines) = mpsc::channel(room);
    let take = Box::new(move |line| sender.try_send(line).is_ok());
    let Some(open) = taps.open(Tap { filter, shown, bodies, take }) else {
        let text = format!("{TAPS_MAX} taps are open; close one of them\n");
        return (StatusCode::TOO_MANY_REQUESTS, text).into_response();
    };
    let (_, dropped) = taps.lines();
    let first = VecDeque::from([b"\n".to_vec()]);
    let lines = Lines { lines, first, taps, dropped, right, _open: open };
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(lines)).into_response()
}

fn wrong(text: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response()
}

/// The body of a tap. Dropping it closes the tap.
struct Lines {
    lines: Receiver<Vec<u8>>,
    /// Lines that come before the others. An empty line tells the client that the tap is open.
    first: VecDeque<Vec<u8>>,
    taps: Arc<Taps>,
    /// The number of dropped lines that the reader knows about.
    dropped: u64,
    right: Right,
    _open: OpenTap,
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |line: Vec<u8>| Poll::Ready(Some(Ok(Frame::data(line.into()))));
        if let Some(line) = self.first.pop_front() {
            return frame(line);
        }
        let line = match self.lines.poll_recv(context) {
            Poll::Ready(Some(_)) if self.right.has_ended() => return Poll::Ready(None),
            Poll::Ready(Some(line)) => line,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let (_, dropped) = self.taps.lines();
        if dropped > self.dropped {
            let lost = json!({ "dropped": dropped - self.dropped });
            self.dropped = dropped;
            self.first.push_back(line);
            return frame(format!("{lost}\n").into_bytes());
        }
        frame(line)
    }
}
