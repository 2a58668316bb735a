//! What an HTTP message is, whatever the wire version: one block of bytes and offsets into it.

mod edits;
mod head;
mod limits;
mod method;

pub use edits::HeaderEdits;
pub use head::{Field, Head, HeadView, Span, Version};
pub use limits::Limits;
pub use method::Method;
