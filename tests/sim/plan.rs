//! The plan of a request. It follows from the seed and the request's number, so client and endpoint
//! agree without communication.

use std::time::Duration;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    /// Responses only.
    UntilClose,
}

/// The service of a request, by the protocol of its endpoints: HTTP/1.1 or HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Http1,
    Http2,
}

/// The kind of requests that an endpoint gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The requests of clients.
    Service,
    /// Copies of them.
    Mirror,
}

impl Role {
    /// The host of its requests.
    pub fn host(self) -> &'static str {
        match self {
            Self::Service => "sim",
            Self::Mirror => "sim-shadow",
        }
    }
}

/// A fault of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointFault {
    /// Closes without sending a byte.
    Silent,
    /// Closes or resets the connection in the head or the body of its response.
    Truncates { reset: bool },
    /// Sends bytes that are not HTTP.
    Garbage,
    /// Stops for so long that the proxy's timeout passes.
    Stalls,
    /// Answers before it has read the whole body. `reads` says whether it reads the rest.
    Early { reads: bool },
}

/// A fault of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFault {
    /// Disconnects in the middle of its request.
    Aborts,
    /// Disconnects in the middle of its response.
    Leaves,
}

/// One request and its response.
#[derive(Clone, Debug)]
pub struct Plan {
    pub id: u32,
    pub service: Service,
    pub method: &'static str,
    pub request: Option<(Framing, usize)>,
    pub expect: bool,
    pub response: (Framing, usize),
    pub status: u16,
    pub interim: bool,
    pub trailers: bool,
    /// How often an HTTP/2 endpoint reports that it has not processed the request.
    pub refusals: u32,
    pub endpoint_fault: Option<EndpointFault>,
    pub client_fault: Option<ClientFault>,
    /// How long the endpoint waits before it answers.
    pub thinks: Duration,
}

impl Plan {
    /// The plan of request `id`. With `faults`, some requests have a fault.
    pub fn new(seed: u64, id: u32, faults: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9) ^ u64::from(id));
        let method = *random.choice(&["GET", "GET", "GET", "PUT", "POST", "HEAD"]).unwrap();
        let has_body = matches!(method, "PUT" | "POST");
        let framing = if random.bool() { Framing::Length } else { Framing::Chunked };
        let request = has_body.then(|| (framing, body_len(&mut random)));
        let response_framing = match random.u8(..10) {
            0 => Framing::UntilClose,
            1..=4 => Framing::Chunked,
            _ => Framing::Length,
        };
        let endpoint_fault = (faults && random.u8(..6) == 0).then(|| match random.u8(..6) {
            0 => EndpointFault::Silent,
            1 | 2 => EndpointFault::Truncates { reset: random.bool() },
            3 => EndpointFault::Garbage,
            4 => EndpointFault::Stalls,
            _ => EndpointFault::Early { reads: random.bool() },
        });
        let client_fault = (faults && random.u8(..10) == 0)
            .then(|| if random.bool() { ClientFault::Aborts } else { ClientFault::Leaves });
        let thinks = match random.u8(..5) {
            0 => Duration::from_millis(random.u64(..4000)),
            _ => Duration::from_micros(random.u64(..500)),
        };
        Self {
            id,
            service: if random.bool() { Service::Http1 } else { Service::Http2 },
            refusals: if random.u8(..8) == 0 { random.u32(1..3) } else { 0 },
            method,
            request,
            expect: has_body && random.u8(..4) == 0,
            response: (response_framing, body_len(&mut random)),
            status: *random.choice(&[200, 200, 200, 201, 404, 204]).unwrap(),
            interim: random.u8(..6) == 0,
            trailers: random.bool(),
            endpoint_fault,
            client_fault,
            thinks,
        }
    }

    /// Whether the request may be sent twice (RFC 9110 9.2.2).
    pub fn idempotent(&self) -> bool {
        self.method != "POST"
    }

    /// Whether its response has a body.
    pub fn answers_body(&self) -> bool {
        self.method != "HEAD" && self.status != 204
    }

    /// The path of the request.
    pub fn path(&self) -> String {
        match self.service {
            Service::Http1 => format!("/1/{}", self.id),
            Service::Http2 => format!("/2/{}", self.id),
        }
    }

    /// The length that the request declares.
    pub fn request_length(&self) -> Option<usize> {
        self.request.and_then(|(framing, len)| (framing == Framing::Length).then_some(len))
    }

    /// The request's body; empty if it has none.
    pub fn request_body(&self) -> Vec<u8> {
        pattern(self.id, 1, self.request.map_or(0, |(_, len)| len))
    }

    /// The response's body; empty if it has none.
    pub fn response_body(&self) -> Vec<u8> {
        pattern(self.id, 2, if self.answers_body() { self.response.1 } else { 0 })
    }

    /// The whole request as it is sent.
    pub fn request_bytes(&self) -> Vec<u8> {
        let id = self.id;
        let line = format!("{} {} HTTP/1.1\r\nHost: sim\r\n", self.method, self.path());
        let mut bytes = line.into_bytes();
        if self.expect {
            bytes.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        let framing = self.request.map(|(framing, _)| framing);
        bytes.extend(framed(framing, &self.request_body(), id, self.trailers));
        bytes
    }

    /// The whole response as it is sent.
    pub fn response_bytes(&self) -> Vec<u8> {
        let (id, status) = (self.id, self.status);
        let mut bytes = Vec::new();
        if self.interim {
            bytes.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        }
        bytes.extend(format!("HTTP/1.1 {status} Planned\r\nX-Id: {id}\r\n").bytes());
        match (self.answers_body(), self.response.0) {
            (true, framing) => {
                bytes.extend(framed(Some(framing), &self.response_body(), id, self.trailers));
            }
            (false, Framing::Length) if self.method == "HEAD" && self.status != 204 => {
                bytes.extend(format!("Content-Length: {}\r\n\r\n", self.response.1).bytes());
            }
            (false, _) => bytes.extend_from_slice(b"\r\n"),
        }
        bytes
    }
}

/// The rest of a head, from the framing field on, and the body.
fn framed(framing: Option<Framing>, body: &[u8], id: u32, trailers: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    match framing {
        None => bytes.extend_from_slice(b"\r\n"),
        Some(Framing::Length) => {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend_from_slice(body);
        }
        Some(Framing::UntilClose) => {
            bytes.extend_from_slice(b"Connection: close\r\n\r\n");
            bytes.extend_from_slice(body);
        }
        Some(Framing::Chunked) => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(id as usize % 3000 + 1) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            let trailer = if trailers { "X-Sum: 1\r\n" } else { "" };
            bytes.extend(format!("0\r\n{trailer}\r\n").bytes());
        }
    }
    bytes
}

/// Bytes that only message `id` has.
pub fn pattern(id: u32, salt: u32, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(id) << 8 | u64::from(salt));
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// A random body length: mostly small, sometimes larger than a buffer, rarely large enough for a
/// splice.
pub fn body_len(random: &mut fastrand::Rng) -> usize {
    match random.u8(..20) {
        0 => random.usize(..400_000),
        1..=4 => random.usize(..40_000),
        5..=7 => 0,
        _ => random.usize(..600),
    }
}
