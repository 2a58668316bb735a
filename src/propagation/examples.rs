//! Requests for tests.

use crate::message::{Field, Head, HeadView, Span};

/// Calls `read` with a request that has these fields.
pub fn with<T>(fields: &[(&str, &str)], read: impl Fn(HeadView<'_>) -> T) -> T {
    let (mut block, mut head) = (Vec::new(), Head::default());
    let mut put = |text: &str| {
        block.extend_from_slice(text.as_bytes());
        Span::new(block.len() - text.len(), block.len())
    };
    for (name, value) in fields {
        head.fields.push(Field { name: put(name), value: put(value), sensitive: false });
    }
    read(head.view(&block))
}
