//! An HTTP message in the same form for all versions: one block of bytes, and offsets into it.

mod edits;
mod head;
mod limits;
mod method;
mod name;

pub use edits::HeaderEdits;
pub use head::{Field, Head, HeadView, Span, Version};
pub use limits::Limits;
pub use method::Method;
pub use name::{elements, is_named, is_token, is_token_byte};
