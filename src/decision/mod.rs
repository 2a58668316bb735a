//! Decides about a client's connection and its requests: the rule, the service, and whether they
//! are allowed. Pure: no I/O, no clock, no counters.
//!
//! The proxy and `ringway explain` call the same functions, so `explain` shows what the proxy does.

mod arrival;
mod path;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use arrival::capture_error;
pub use path::normalise;

use crate::authz::{Decision, Peer, Policies, Request, Target};
use crate::cluster::{Destination, Protocol, Service};
use crate::error::{Flag, Refusal};
use crate::jwt::{Claims, Rejection, Requirement};
use crate::mesh::{Capture, Declared, Direction, OriginalTarget};
use crate::message::{HeadView, Method};
use crate::propagation::forwarded;
use crate::route::{HTTP_PORT, HTTPS_PORT, Rule, Split, Sticky};
use crate::snapshot::{Listener, Snapshot};

/// A client's connection to a listener.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// The listener that accepted the connection.
    pub listener: &'a Listener,
    /// The verified SPIFFE ID of the client. For captured outbound traffic, it is the identity of
    /// this workload.
    pub identity: Option<&'a str>,
    /// The client's address. `None` means a Unix-domain socket.
    pub ip: Option<IpAddr>,
    /// The scheme of the connection: `https` with TLS, else `http`.
    pub scheme: &'static str,
    /// The local port of the connection, or its original destination port; 0 if there is none.
    pub port: u16,
    /// The original destination of a captured connection. `None` means not captured.
    pub original: Option<SocketAddr>,
    /// Whether the connection came without TLS to a port that requires mutual TLS. Such a
    /// connection may make only health checks.
    pub probes_only: bool,
}

/// The rule for a request.
pub struct Routed<'a> {
    /// The rule, or the reason why there is none.
    pub rule: Result<&'a Arc<Rule>, Refusal>,
    /// Whether no route matched, and no service has the original destination.
    pub is_unknown: bool,
}

impl<'a> Client<'a> {
    /// Returns the rule for a request: a route or, for a captured connection, the rule of its
    /// original destination.
    pub fn rule(&self, request: HeadView<'_>) -> Routed<'a> {
        let of = |rule| Routed { rule, is_unknown: false };
        let port = self.default_port(request);
        if let Some(rule) = self.listener.routes().and_then(|routes| routes.find(request, port)) {
            return of(Ok(rule));
        }
        let connect = request.head.method == Method::Connect;
        let Some((capture, original)) = self.captured() else {
            return of(Err(if connect { NO_TUNNEL } else { NO_ROUTE }));
        };
        if connect && !passes_connect(capture, original, request, port) {
            return of(Err(NO_TUNNEL));
        }
        match capture.target(original) {
            OriginalTarget::Service(_, rule) => of(Ok(rule)),
            OriginalTarget::Endpoint(_) | OriginalTarget::Workload => of(Ok(&capture.onward)),
            OriginalTarget::Unknown => Routed { rule: Ok(&capture.onward), is_unknown: true },
            OriginalTarget::Denied => Routed { rule: Err(UNKNOWN), is_unknown: true },
        }
    }

    /// Returns the port for a host without a port: the default port of the client's scheme. A
    /// trusted proxy may report this scheme.
    pub fn default_port(&self, request: HeadView<'_>) -> u16 {
        let reported = forwarded::scheme(request, self.listener.trusted_hops);
        match reported.unwrap_or(self.scheme) {
            "https" => HTTPS_PORT,
            _ => HTTP_PORT,
        }
    }

    /// Returns the capture settings and the original destination. `None` if the connection was not
    /// captured.
    pub fn captured(&self) -> Option<(&'a Capture, SocketAddr)> {
        Some((self.listener.capture()?, self.original?))
    }

    /// Returns the service of the destination `to`. For captured traffic to its original
    /// destination: the service that has this address, or the service for unknown destinations.
    pub fn service(&self, snapshot: &'a Snapshot, to: Destination) -> Option<&'a Arc<Service>> {
        if to != Destination::ORIGINAL {
            return snapshot.services.get(to.service as usize);
        }
        let (capture, original) = self.captured()?;
        let named = match capture.target(original) {
            OriginalTarget::Service(to, _) => Some(to.service),
            OriginalTarget::Endpoint(service) => Some(service),
            OriginalTarget::Workload => capture.workload(original),
            OriginalTarget::Unknown => None,
            OriginalTarget::Denied => return None,
        };
        match named {
            Some(service) => snapshot.services.get(service as usize),
            None => Some(&capture.passthrough),
        }
    }

    /// Returns the position of the user among all users, from 0 to `u64::MAX`, for a rule that
    /// keeps each user on one version. `request` is `None` for an L4 connection. Returns `None` if
    /// the rule is not sticky, or the request does not have the value that identifies its user.
    pub fn point(&self, rule: &Rule, request: Option<HeadView<'_>>) -> Option<u64> {
        let sticky = rule.sticky.as_ref()?;
        let hops = self.listener.trusted_hops;
        let reported = request.and_then(|request| forwarded::client_ip(request, hops));
        sticky.point(request, reported.or(self.ip), self.identity)
    }

    /// Returns the version on which a request of a sticky rule stays. `split` has the versions of
    /// the rule. `None` if the rule is not sticky, or if the request does not say where it belongs.
    pub fn kept(
        &self,
        rule: &Rule,
        split: &Split,
        request: Option<HeadView<'_>>,
    ) -> Option<Destination> {
        match rule.sticky.as_deref()? {
            Sticky::Set(cookie) => cookie.kept(request?, split),
            _ => self.point(rule, request).map(|point| split.at(point)),
        }
    }

    /// Returns the protocol that the port or the destination's service declares for a captured
    /// connection. `None` means that the protocol must be detected from the first bytes.
    pub fn declared(&self, service: Option<&Service>) -> Option<Declared> {
        let (capture, original) = self.captured()?;
        let is_tcp = service.is_some_and(|service| service.protocol == Protocol::Tcp);
        capture.declared(original.port()).or_else(|| is_tcp.then_some(Declared::Tcp))
    }

    /// Whether a request is a health check, which needs no identity and no authorization.
    ///
    /// # Errors
    /// When only health checks are allowed and the request is not one.
    pub fn is_probe(&self, request: HeadView<'_>) -> Result<bool, Refusal> {
        let Some((capture, original)) = self.captured() else { return Ok(false) };
        let reads = matches!(request.head.method, Method::Get | Method::Head);
        if reads && capture.is_probe(original.port(), request.path()) {
            return Ok(true);
        }
        if self.probes_only { Err(MEMBERS_ONLY) } else { Ok(false) }
    }

    /// Evaluates the authorization rules for traffic to `service`, which is empty when the proxy
    /// itself responds. `request` is `None` for an L4 connection.
    pub fn authorize<'p, 'r>(
        &self,
        policies: &'p Policies,
        service: &'r str,
        request: Option<HeadView<'r>>,
        claims: Option<&'r Claims>,
    ) -> Decision<'p, 'r>
    where
        'a: 'r,
    {
        let (peer, target) = self.facts(service, request, claims);
        policies.decide(&peer, &target)
    }

    /// Returns the values that authorization rules compare.
    pub fn facts<'r>(
        &self,
        service: &'r str,
        request: Option<HeadView<'r>>,
        claims: Option<&'r Claims>,
    ) -> (Peer<'r>, Target<'r>)
    where
        'a: 'r,
    {
        let hops = self.listener.trusted_hops;
        let forwarded_ip = request.and_then(|request| forwarded::client_ip(request, hops));
        let peer = Peer { identity: self.identity, ip: self.ip, forwarded_ip };
        let request = request.map(|head| Request {
            method: head.method_name(),
            host: head.authority(),
            path: head.path(),
            head,
            claims,
        });
        let ip = self.original.map(|original| original.ip());
        let outbound = self.listener.direction == Direction::Outbound;
        (peer, Target { service, port: self.port, ip, outbound, request })
    }
}

/// Whether a captured CONNECT is forwarded without a route. It is forwarded if it is outbound, no
/// service has its original destination and no route has its host. It usually goes to a proxy that
/// the workload uses. A CONNECT to a known service is refused: if the endpoint responds with 2xx as
/// to an ordinary request, no rule would check the requests in the tunnel.
fn passes_connect(
    capture: &Capture,
    original: SocketAddr,
    request: HeadView<'_>,
    port: u16,
) -> bool {
    capture.direction == Direction::Outbound
        && capture.addresses.find(original).is_none()
        && !capture.routes.knows_host(request, port)
}

/// Returns the token requirement for a request: that of the rule, or else that of the service, or
/// else that of the listener.
pub fn demanded<'r>(
    rule: &'r Rule,
    service: Option<&'r Service>,
    listener: &'r Listener,
) -> Option<&'r Requirement> {
    let of_service = || service?.jwt.as_deref();
    rule.jwt.as_deref().or_else(of_service).or(listener.jwt.as_deref())
}

/// Checks whether opaque bytes may be forwarded to `service` without a token. `rule` is the rule
/// that selected the service, if there is one.
///
/// # Errors
/// When a token is required, because opaque bytes cannot carry a token.
pub fn check_bytes(rule: Option<&Rule>, service: &Service) -> Result<(), Refusal> {
    let demands = service.jwt.is_some() || rule.is_some_and(|rule| rule.jwt.is_some());
    if demands { Err(NO_TOKEN) } else { Ok(()) }
}

/// Returns the refusal of a request without a valid token.
pub fn no_token(rejection: Rejection) -> Refusal {
    Refusal { status: 401, flag: Flag::Unauthorized, detail: rejection.detail() }
}

/// The refusal of a request that an authorization rule denies. Only the log names the rule.
pub const DENIED: Refusal =
    Refusal { status: 403, flag: Flag::Unauthorized, detail: "access denied by policy" };

/// The refusal of traffic to an unknown destination.
pub const UNKNOWN: Refusal = Refusal {
    status: 502,
    flag: Flag::OriginalDestination,
    detail: "no route and no service has this destination, and unknown destinations are denied",
};

/// The refusal of a connection without TLS on a port that requires mutual TLS.
pub const MEMBERS_ONLY: Refusal =
    Refusal { status: 403, flag: Flag::Unauthorized, detail: "this port requires mutual TLS" };

const NO_ROUTE: Refusal = Refusal { status: 404, flag: Flag::NoRoute, detail: "no route matched" };

const NO_TUNNEL: Refusal =
    Refusal { status: 405, flag: Flag::NoRoute, detail: "no route names the method CONNECT" };

const NO_TOKEN: Refusal = Refusal {
    status: 401,
    flag: Flag::Unauthorized,
    detail: "the service requires a token, which an opaque connection cannot carry",
};
