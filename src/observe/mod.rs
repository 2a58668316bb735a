//! The reports about an exchange: its values by name, filters over them, and the formats of log
//! lines. Pure: no I/O, no clock.

pub mod body_copy;
pub mod field;
pub mod filter;
pub mod format;
pub mod headers;
mod operators;
pub mod otlp;
pub mod otlp_lines;
mod parse;
pub mod record;
pub mod span;
pub mod story;
mod strftime;
pub mod tap;
mod text;
pub mod trace;

use std::sync::Arc;

pub use body_copy::BodyCopy;
pub use field::Field;
pub use filter::Filter;
pub use format::Format;
pub use headers::{HeaderCopy, Wanted};
pub use record::Record;
pub use trace::{Export, Trace, TraceTerms, Tracing};

/// The receivers of reports about exchanges, besides counters and lines. All workers share them.
#[derive(Default)]
pub struct Observers {
    /// The open taps.
    pub taps: Arc<tap::Taps>,
    /// The stories of the last exchanges.
    pub stories: story::Stories,
    /// The spans that wait for their export.
    pub spans: span::Spans,
}

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
