//! Receives a head that is written: as the text of HTTP/1.1, or for the encoder of HTTP/2.

use crate::message::Field;

/// Receives the head of a message, one part after the other. A `Vec<u8>` stores the text of an
/// HTTP/1.1 head; a [`Draft`](crate::http2::Draft) stores an HTTP/2 head. For both,
/// [`encode`](super::encode) decides which fields are forwarded.
pub trait Sink {
    /// Receives the request line. The target is the concatenation of `target`.
    fn request_line(&mut self, method: &[u8], target: &[&[u8]]);

    /// Receives the status line.
    fn status_line(&mut self, status: u16, reason: &[u8]);

    /// Receives the authority of a request.
    fn authority(&mut self, authority: &[u8]);

    /// Receives a field that is forwarded unchanged, with all others of its name. Its offsets are
    /// relative to `block`.
    fn keep(&mut self, field: Field, block: &[u8]);

    /// Receives a field that is removed, with all others of its name.
    fn leave(&mut self, name: &[u8]);

    /// Receives a field that the proxy adds. The value is the concatenation of `value`.
    fn add(&mut self, name: &[u8], value: &[&[u8]]);

    /// Receives a field for this connection only. HTTP/2 ignores the field.
    fn add_hop(&mut self, name: &[u8], value: &[u8]);

    /// Ends the head.
    fn end(&mut self);
}

/// A function that writes fields that only the caller of `encode` can compute.
pub type More<'a> = &'a dyn Fn(&mut dyn Sink);

impl Sink for Vec<u8> {
    fn request_line(&mut self, method: &[u8], target: &[&[u8]]) {
        self.extend_from_slice(method);
        self.push(b' ');
        target.iter().for_each(|part| self.extend_from_slice(part));
        self.extend_from_slice(b" HTTP/1.1\r\n");
    }

    fn status_line(&mut self, status: u16, reason: &[u8]) {
        self.extend_from_slice(b"HTTP/1.1 ");
        let digit = |n: u16| b'0' + (n % 10) as u8;
        self.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
        self.extend_from_slice(reason);
        self.extend_from_slice(b"\r\n");
    }

    fn authority(&mut self, authority: &[u8]) {
        self.add(b"Host", &[authority]);
    }

    fn keep(&mut self, field: Field, block: &[u8]) {
        let (name, value) = (field.name, field.value);
        let line = block.get(name.start as usize..value.end() + 2).unwrap_or_default();
        let as_usual = value.start as usize == name.end() + 2
            && line.get(name.len as usize..).is_some_and(|rest| rest.starts_with(b": "))
            && line.ends_with(b"\r\n");
        match as_usual {
            // The line has the same spelling as `add` would write: one copy instead of four.
            true => self.extend_from_slice(line),
            false => self.add(name.of(block), &[value.of(block)]),
        }
    }

    fn leave(&mut self, _: &[u8]) {}

    fn add(&mut self, name: &[u8], value: &[&[u8]]) {
        self.extend_from_slice(name);
        self.extend_from_slice(b": ");
        value.iter().for_each(|part| self.extend_from_slice(part));
        self.extend_from_slice(b"\r\n");
    }

    fn add_hop(&mut self, name: &[u8], value: &[u8]) {
        self.add(name, &[value]);
    }

    fn end(&mut self) {
        self.extend_from_slice(b"\r\n");
    }
}
