//! What an HTTP message is, whatever the wire version: one block of bytes and offsets into it.

mod head;
mod method;

pub use head::{Field, Head, HeadView, Span, Version};
pub use method::Method;
