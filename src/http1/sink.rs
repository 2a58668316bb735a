//! Where the head of a message is written to.

use crate::message::Field;

/// Takes a head part by part: as text (`Vec<u8>`) or as what goes out by HTTP/2
/// ([`Draft`](crate::http2::Draft)). What goes on and what does not is decided once, by
/// [`encode`](super::encode), whichever it is.
pub trait Sink {
    /// The first line of a request. Its target is the `target`s one after the other.
    fn request_line(&mut self, method: &[u8], target: &[&[u8]]);

    /// The first line of a response.
    fn status_line(&mut self, status: u16, reason: &[u8]);

    /// To whom a request goes.
    fn authority(&mut self, authority: &[u8]);

    /// A received field that goes on as it came: it, and all others of its name.
    fn keep(&mut self, field: Field, name: &[u8], value: &[u8]);

    /// A received field that goes no further, as all others of its name.
    fn leave(&mut self, name: &[u8]);

    /// A field of ours. Its value is the `value`s one after the other.
    fn add(&mut self, name: &[u8], value: &[&[u8]]);

    /// A field about the connection, which HTTP/2 does not have.
    fn add_hop(&mut self, name: &[u8], value: &[u8]);

    /// The end of the head.
    fn end(&mut self);
}

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

    fn keep(&mut self, _: Field, name: &[u8], value: &[u8]) {
        self.add(name, &[value]);
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
