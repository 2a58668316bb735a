//! The properties of a request, computed once for all rules.

use std::net::IpAddr;

use super::identity::Identity;
use super::path_pattern::PathReadings;
use super::{Peer, Target};
use crate::jwt::Claims;
use crate::matching::split_authority;
use crate::message::HeadView;

/// The properties of a request or connection that the rules evaluate.
pub(super) struct Facts<'a> {
    pub(super) identity: Option<Identity<'a>>,
    pub(super) ip: Option<IpAddr>,
    pub(super) forwarded_ip: Option<IpAddr>,
    /// The address that a trusted proxy reported, or else that of the peer.
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) service: &'a str,
    pub(super) port: u16,
    pub(super) destination: Option<IpAddr>,
    pub(super) outbound: bool,
    pub(super) request: Option<RequestFacts<'a>>,
}

pub(super) struct RequestFacts<'a> {
    pub(super) method: &'a [u8],
    /// The host without its port.
    pub(super) host: &'a [u8],
    pub(super) path: PathReadings<'a>,
    pub(super) head: HeadView<'a>,
    pub(super) claims: Option<&'a Claims>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(peer: &Peer<'a>, target: &Target<'a>) -> Self {
        Self {
            identity: peer.identity.and_then(Identity::parse),
            ip: peer.ip,
            forwarded_ip: peer.forwarded_ip,
            remote_ip: peer.forwarded_ip.or(peer.ip),
            service: target.service,
            port: target.port,
            destination: target.ip,
            outbound: target.outbound,
            request: target.request.map(|request| RequestFacts {
                method: request.method,
                host: split_authority(request.host).0,
                path: PathReadings::new(request.path),
                head: request.head,
                claims: request.claims,
            }),
        }
    }
}
