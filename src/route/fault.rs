//! The faults that a rule injects.

use super::matcher::fits_headers;
use crate::matching::ValueMatch;
use crate::message::HeadView;
use crate::resilience::{FaultPolicy, Injected};

/// The faults of a rule, and the requests that may get them.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// Conditions on header fields, which must all match.
    pub headers: Vec<(Box<str>, ValueMatch)>,
    /// The faults, and how many requests get them.
    pub policy: FaultPolicy,
}

impl Fault {
    /// Decides which faults the request gets. `draw` is the random source of
    /// [`FaultPolicy::decide`].
    pub fn decide(&self, request: HeadView<'_>, draw: impl FnMut() -> u32) -> Option<Injected> {
        match self.applies(request) {
            true => self.policy.decide(draw),
            false => None,
        }
    }

    /// Whether the request meets the conditions for a fault.
    pub fn applies(&self, request: HeadView<'_>) -> bool {
        fits_headers(request, &self.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse;
    use crate::message::{Head, Limits};
    use crate::resilience::{Abort, Chance};

    #[test]
    fn only_requests_with_the_header_get_a_fault() {
        let abort = Some((Abort::Status(503), Chance::ALWAYS));
        let fault = Fault {
            headers: vec![("X-Chaos".into(), ValueMatch::parse("on").unwrap())],
            policy: FaultPolicy { abort, ..FaultPolicy::default() },
        };
        for (field, expected) in [("x-chaos: on", true), ("x-chaos: off", false), ("a: on", false)]
        {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
            let mut head = Head::default();
            parse::request(text.as_bytes(), 0..text.len(), &Limits::default(), &mut head).unwrap();
            let injected = fault.decide(head.view(text.as_bytes()), || 0);
            assert_eq!(injected.is_some(), expected, "{field}");
        }
    }
}
