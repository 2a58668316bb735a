//! What is told about an exchange: its values by name, filters over them, and the formats of log
//! lines. Pure: no I/O, no clock.

pub mod field;
pub mod filter;
pub mod format;
pub mod headers;
mod operators;
mod parse;
pub mod record;
mod strftime;
mod text;

pub use field::Field;
pub use filter::Filter;
pub use format::Format;
pub use headers::{HeaderCopy, Wanted};
pub use record::Record;

/// A mistake in a filter or a format, and advice on what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// The position of the mistake in the text, in bytes.
    pub at: usize,
    /// The mistake.
    pub message: String,
    /// Advice what to write instead.
    pub help: String,
}

impl TextError {
    fn new(at: usize, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: help.into() }
    }
}
