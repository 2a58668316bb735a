//! Pages that grow with the configuration are rendered by another thread. The control thread does
//! its other work meanwhile.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::Semaphore;

/// The maximum number of such pages at a time. Further requests wait.
const RENDERED_MAX: usize = 2;

static TURNS: Semaphore = Semaphore::const_new(RENDERED_MAX);

/// Calls `render` in another thread. `None` if it has failed.
pub(super) async fn elsewhere<T: Send + 'static>(
    render: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let turn = TURNS.acquire().await.ok()?;
    let rendering = tokio::task::spawn_blocking(move || {
        let page = render();
        // The page of a client that has gone away is rendered, too.
        drop(turn);
        page
    });
    rendering.await.ok()
}

/// A page of JSON that `render` writes in another thread.
pub(super) async fn json(render: impl FnOnce(&mut Vec<u8>) + Send + 'static) -> Response {
    let rendered = elsewhere(move || {
        let mut text = Vec::new();
        render(&mut text);
        text
    });
    match rendered.await {
        Some(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Writes a list, one item after the other, so that only one item is in memory twice.
pub(super) fn put_list(text: &mut Vec<u8>, items: impl Iterator<Item = Value>) {
    text.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        put(text, &item);
    }
    text.push(b']');
}

/// Writes one value. Writing to a vector does not fail.
pub(super) fn put(text: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(text, value).ok();
}
