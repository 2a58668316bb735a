//! Normalises the path of a request.

use crate::authz::{EscapedSlashes, Normal, path};
use crate::error::Refusal;
use crate::message::{Head, Span};

/// Normalises the path of a request in place, so that routes, authorization rules and the endpoint
/// use the same path. The normalised path is never longer. `data` is the part of the head's block
/// from `offset` on, and contains the complete head. `scratch` is overwritten.
///
/// # Errors
/// 400 for a path that cannot be normalised.
pub fn normalise(
    slashes: EscapedSlashes,
    head: &mut Head,
    data: &mut [u8],
    offset: usize,
    scratch: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let (start, end) = (head.path.start as usize, head.target.end());
    if head.path.is_empty() {
        return Ok(());
    }
    let at = start - offset;
    if path::normalise(&data[at..end - offset], slashes, scratch)? == Normal::Unchanged {
        return Ok(());
    }
    let normal = &*scratch;
    data[at..at + normal.len()].copy_from_slice(normal);
    let path = memchr::memchr(b'?', normal).unwrap_or(normal.len());
    head.target = Span::new(head.target.start as usize, start + normal.len());
    head.path = Span::new(start, start + path);
    head.query = Span::new((start + path + 1).min(start + normal.len()), start + normal.len());
    Ok(())
}
