//! From what was written to what workers use: names become indices, patterns are compiled, and
//! everything that does not fit together is found.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::compile_authorization;
use super::compile_http2;
use super::compile_jwt::{self, KeySource};
use super::compile_mesh;
use super::compile_rules::{self, Hosts};
use super::compile_services;
use super::compile_tls::{self, MeshIdentity};
use super::decode::suggestion;
use super::diagnostic::{Diagnostic, Diagnostics, Place};
use super::file::{self, Driver};
use super::values::Placed;
use super::{Loaded, Snapshot};
use crate::authz::EscapedSlashes;
use crate::cluster::{Destination, Service};
use crate::compile::registry::Registry;
use crate::dns::DnsPlan;
use crate::http1::parse::HEADERS_MAX;
use crate::jwt::{KeySet, Provider};
use crate::mesh::MARK;
use crate::message;
use crate::net::Bind;
use crate::net::Egress;
use crate::route::{Rule, Table};
use crate::snapshot::{AccessLog, Limits, Listener, LogFormat, LogSink, Serves, Timeouts};
use crate::tls::CertificateInfo;

/// Where the admin interface listens unless it is told otherwise.
const ADMIN_BIND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);

/// How long a drain lasts unless it is told otherwise.
const DRAIN: Duration = Duration::from_secs(30);

/// The least that `limits.header_bytes` may be.
const HEADER_BYTES_MIN: usize = 256;

/// What the control thread has found out beside the files.
#[derive(Clone, Debug, Default)]
pub struct Resolutions {
    /// The addresses of services that are found by name: `HOST:PORT` to addresses.
    pub names: HashMap<String, Vec<SocketAddr>>,
    /// The keys of issuers of tokens, by URL.
    pub key_sets: HashMap<String, Arc<KeySet>>,
}

impl Resolutions {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A configuration that is ready to be applied.
pub struct Compiled {
    /// What workers use.
    pub snapshot: Snapshot,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
    /// Where the resolver for the workload listens, and what it knows.
    pub dns: DnsPlan,
    /// Number of workers; `None` for one a CPU.
    pub workers: Option<usize>,
    /// The kernel interface.
    pub driver: Driver,
    /// The `HOST:PORT` of services that are found by name.
    pub names: Vec<String>,
    /// The keys that are to be fetched.
    pub key_sources: Vec<KeySource>,
    /// `file:line:column` of each listener's bind, for when it cannot be had.
    pub bind_places: HashMap<Bind, String>,
}

/// What the steps of compiling share.
pub(super) struct Compiler<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) registry: &'a mut Registry,
    pub(super) resolutions: &'a Resolutions,
    pub(super) mistakes: Vec<Diagnostic>,
    /// Virtual addresses of services, and where each was written.
    pub(super) virtual_addresses: HashMap<SocketAddr, String>,
    /// Who this workload is.
    pub(super) mesh: Option<MeshIdentity>,
    /// All rules so far, in order of their index.
    pub(super) rules: Vec<Arc<Rule>>,
    /// Certificates in use.
    pub(super) certificates: Vec<CertificateInfo>,
    /// Issuers of tokens.
    pub(super) providers: Vec<Arc<Provider>>,
    /// Where their keys are to be fetched.
    pub(super) key_sources: Vec<KeySource>,
}

/// Compiles what was loaded into the snapshot number `version`.
///
/// # Errors
/// Every mistake, those of [`super::load`] included.
pub fn compile(
    loaded: &Loaded,
    version: u64,
    registry: &mut Registry,
    resolutions: &Resolutions,
) -> Result<Compiled, Diagnostics> {
    let mistakes = loaded.mistakes.clone();
    let mut compiler = Compiler {
        loaded,
        registry,
        resolutions,
        mistakes,
        virtual_addresses: HashMap::new(),
        mesh: None,
        rules: Vec::new(),
        certificates: Vec::new(),
        providers: Vec::new(),
        key_sources: Vec::new(),
    };
    compiler.mesh = compile_tls::mesh(&mut compiler);
    compiler.providers = compile_jwt::providers(&mut compiler);
    let config = &loaded.config;
    let services = compile_services::services(&mut compiler);
    let hosts = compile_rules::hosts(&mut compiler, &services);
    let mut bind_places = HashMap::new();
    let mut listeners = listeners(&mut compiler, &services, &hosts, &mut bind_places);
    let captured = compile_mesh::listeners(&mut compiler, &services, &hosts, &mut bind_places);
    listeners.extend(captured);
    listeners.sort_by(|one, other| one.name.cmp(&other.name));
    let dns = compile_mesh::dns(&mut compiler, &services);
    let names: Vec<String> = config
        .services
        .0
        .iter()
        .filter_map(|(_, s)| Some(s.value.dns.as_ref()?.value.clone()))
        .collect();
    let snapshot = Snapshot {
        version,
        listeners,
        services,
        rules: std::mem::take(&mut compiler.rules),
        limits: limits(&mut compiler),
        authorization: compile_authorization::policies(&mut compiler),
        drain: config.drain.as_ref().map_or(DRAIN, |time| time.0),
        access_log: access_log(&mut compiler),
        certificates: std::mem::take(&mut compiler.certificates),
        jwt_providers: std::mem::take(&mut compiler.providers),
    };
    let admin = admin(&mut compiler);
    let Compiler { mistakes, key_sources, .. } = compiler;
    if !mistakes.is_empty() {
        return Err(Diagnostics::new(mistakes, loaded.sources.clone()));
    }
    let workers = config.runtime.workers.as_ref().and_then(|workers| workers.0);
    let driver = config.runtime.driver;
    Ok(Compiled { snapshot, admin, dns, workers, driver, names, key_sources, bind_places })
}

impl Compiler<'_> {
    /// The mark of what the proxy sends where traffic is captured.
    pub(super) fn mark(&self) -> u32 {
        self.loaded.config.mesh.intercept.mark.as_ref().map_or(MARK, |mark| mark.value)
    }

    /// How connections to endpoints leave.
    pub(super) fn egress(&self) -> Egress {
        let mesh = &self.loaded.config.mesh;
        let captures = !(mesh.inbound.bind.0.is_empty() && mesh.outbound.bind.0.is_empty());
        Egress { mark: if captures { self.mark() } else { 0 }, source: None }
    }

    pub(super) fn mistake(&mut self, place: Place, message: impl Into<String>) {
        self.mistakes.push(Diagnostic::at(place, message));
    }

    pub(super) fn mistake_with_help(
        &mut self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.mistakes.push(Diagnostic::at(place, message).help(help));
    }

    /// The index of the next rule.
    pub(super) fn rule_index(&self) -> u32 {
        self.rules.len() as u32
    }

    /// Takes in a rule that was compiled with [`Compiler::rule_index`].
    pub(super) fn rule(&mut self, rule: Rule) -> Arc<Rule> {
        let rule = Arc::new(rule);
        self.rules.push(Arc::clone(&rule));
        rule
    }

    /// The destination that `SERVICE` or `SERVICE/VERSION` names.
    pub(super) fn destination(
        &mut self,
        services: &[Arc<Service>],
        place: Place,
        reference: &str,
    ) -> Option<Destination> {
        let (name, version) = reference.split_once('/').unwrap_or((reference, ""));
        let Ok(service) = services.binary_search_by(|service| (*service.name).cmp(name)) else {
            let broken = self.loaded.config.services.0.iter().any(|(n, _)| n.value == name);
            if !broken {
                let known: Vec<&str> = services.iter().map(|service| &*service.name).collect();
                let help = suggestion(name, &known);
                self.mistake_with_help(place, format!("there is no service {name:?}"), help);
            }
            return None;
        };
        let subsets = &services[service].subsets;
        let Some(subset) = subsets.iter().position(|subset| *subset.version == *version) else {
            let known: Vec<&str> = subsets[1..].iter().map(|subset| &*subset.version).collect();
            let help = suggestion(version, &known);
            let message = format!("the service {name:?} has no version {version:?}");
            self.mistake_with_help(place, message, help);
            return None;
        };
        Some(Destination { service: service as u32, subset: subset as u32 })
    }
}

fn listeners(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    hosts: &Hosts,
    bind_places: &mut HashMap<Bind, String>,
) -> Vec<Arc<Listener>> {
    let all = Arc::new(Table::build(hosts.all()));
    let mut listeners = Vec::new();
    for (name, listener) in &compiler.loaded.config.listeners.0 {
        let serves = serves(compiler, &name.value, listener, services, hosts, &all);
        let binds = binds(compiler, &listener.value.bind.0, bind_places);
        let value = &listener.value;
        let tls = compile_tls::listener(compiler, &name.value, value, &binds);
        let Some(serves) = serves else { continue };
        let http2 = compile_http2::settings(compiler, &value.http2);
        if let Some(via) = &value.via
            && !is_token(&via.value)
        {
            compiler.mistake(via.place, format!("{:?} is not a token", via.value));
        }
        listeners.push(Arc::new(Listener {
            name: name.value.as_str().into(),
            binds,
            serves,
            tls,
            http1: value.protocol != file::ListenerProtocol::Http2,
            http2: (value.protocol != file::ListenerProtocol::Http).then_some(http2),
            proxy_protocol: value.proxy_protocol,
            trusted_hops: value.trusted_hops,
            forward_client_cert: value.forward_client_cert,
            request_id: value.request_id.unwrap_or(true),
            via: value.via.as_ref().map(|via| via.value.as_str().into()),
            escaped_slashes: match value.escaped_slashes {
                file::EscapedSlashes::Reject => EscapedSlashes::Reject,
                file::EscapedSlashes::Keep => EscapedSlashes::Keep,
                file::EscapedSlashes::Decode => EscapedSlashes::Decode,
            },
            connections_max: value.connections.unwrap_or(u32::MAX),
            timeouts: timeouts(&value.timeouts),
            stats: compiler.registry.listener(&name.value),
        }));
    }
    listeners
}

/// How long a client may take.
pub(super) fn timeouts(written: &file::Timeouts) -> Timeouts {
    let or = |time: &Option<super::values::Time>, default: u64| {
        time.as_ref().map_or_else(|| Duration::from_secs(default), |time| time.0)
    };
    Timeouts {
        handshake: or(&written.handshake, 10),
        header: or(&written.header, 10),
        body_idle: or(&written.body_idle, 60),
        keep_alive: or(&written.keep_alive, 60),
        tcp_idle: or(&written.tcp_idle, 3600),
    }
}

fn serves(
    compiler: &mut Compiler<'_>,
    name: &str,
    listener: &Placed<file::Listener>,
    services: &[Arc<Service>],
    hosts: &Hosts,
    all: &Arc<Table>,
) -> Option<Serves> {
    let value = &listener.value;
    match (value.protocol, &value.service, &value.hosts) {
        (file::ListenerProtocol::Tcp, Some(service), _) => {
            if let Some(first) = value.hosts.as_ref().and_then(|hosts| hosts.0.first()) {
                compiler.mistake(first.place, "a tcp listener has no hosts");
            }
            compiler.destination(services, service.place, &service.value).map(Serves::Tcp)
        }
        (file::ListenerProtocol::Tcp, None, _) => {
            let message = format!("the tcp listener {name:?} has no service");
            compiler.mistake_with_help(listener.place, message, "add `service: NAME`");
            None
        }
        (_, Some(service), _) => {
            let help = "add `protocol: tcp`, or name the service in `routes`";
            compiler.mistake_with_help(service.place, "`service` is for tcp listeners", help);
            None
        }
        (file::ListenerProtocol::Tls, None, _) if value.tls.is_some() => {
            let help = "leave `tls` out, or write `protocol: tcp` or `auto` to terminate it";
            let message = "TLS that is passed on is not terminated";
            compiler.mistake_with_help(listener.place, message, help);
            None
        }
        (file::ListenerProtocol::Tls, None, None) => Some(Serves::Tls(Arc::clone(all))),
        (_, None, None) => Some(Serves::Http(Arc::clone(all))),
        (protocol, None, Some(wanted)) => {
            let table = Arc::new(only(compiler, hosts, &wanted.0));
            Some(match protocol {
                file::ListenerProtocol::Tls => Serves::Tls(table),
                _ => Serves::Http(table),
            })
        }
    }
}

/// The routes of `wanted` hosts.
pub(super) fn only(compiler: &mut Compiler<'_>, hosts: &Hosts, wanted: &[Placed<String>]) -> Table {
    let (table, unknown) = hosts.only(wanted);
    for host in unknown {
        let known: Vec<&str> = hosts.names().collect();
        let help = suggestion(&host.value, &known);
        let message = format!("there are no routes for {:?}", host.value);
        compiler.mistake_with_help(host.place, message, help);
    }
    table
}

pub(super) fn binds(
    compiler: &mut Compiler<'_>,
    written: &[Placed<String>],
    bind_places: &mut HashMap<Bind, String>,
) -> Vec<Bind> {
    let mut binds = Vec::new();
    for bind in written {
        let parsed = match bind.value.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(Bind::Unix(PathBuf::from(path))),
            Some(("systemd", name)) if !name.is_empty() => Ok(Bind::Systemd(name.to_owned())),
            _ => bind.value.parse().map(Bind::Tcp),
        };
        let Ok(parsed) = parsed else {
            let message = format!("{:?} is not an address to listen on", bind.value);
            let help = "write IP:PORT, [IPv6]:PORT, unix:/path or systemd:NAME";
            compiler.mistake_with_help(bind.place, message, help);
            continue;
        };
        let place = bind.place;
        let at = format!("{}:{}", compiler.loaded.sources.file_line(place), place.column);
        if let Some(first) = bind_places.insert(parsed.clone(), at) {
            let message = format!("{parsed} is taken by another listener, at {first}");
            compiler.mistake(bind.place, message);
            continue;
        }
        binds.push(parsed);
    }
    binds
}

fn limits(compiler: &mut Compiler<'_>) -> Limits {
    let written = &compiler.loaded.config.limits;
    let default = Limits::default();
    if let Some(headers) = &written.headers
        && !(1..=HEADERS_MAX as u32).contains(&headers.value)
    {
        compiler
            .mistake(headers.place, format!("between 1 and {HEADERS_MAX} fields can be allowed"));
    }
    if let Some(bytes) = &written.header_bytes
        && !(HEADER_BYTES_MIN..=16 * 1024 * 1024).contains(&bytes.value.0)
    {
        compiler.mistake(
            bytes.place,
            format!("between {HEADER_BYTES_MIN} B and 16 MiB can be allowed"),
        );
    }
    let size = |written: &Option<super::values::Size>, default: usize| {
        written.as_ref().map_or(default, |size| size.0)
    };
    let of = default.message;
    Limits {
        connections: written.connections.unwrap_or(default.connections),
        message: message::Limits {
            header_bytes: written.header_bytes.as_ref().map_or(of.header_bytes, |b| b.value.0),
            headers: written.headers.as_ref().map_or(of.headers, |n| n.value as usize),
            uri_bytes: size(&written.uri_bytes, of.uri_bytes),
            chunk_extension_bytes: size(&written.chunk_extension_bytes, of.chunk_extension_bytes),
            trailer_bytes: size(&written.trailer_bytes, of.trailer_bytes),
        },
        http2: compile_http2::limits(compiler, &written.http2),
    }
}

fn access_log(compiler: &mut Compiler<'_>) -> Option<AccessLog> {
    let written = compiler.loaded.config.telemetry.access_log.as_ref()?;
    let sink = match written.path.value.as_str() {
        "stdout" => LogSink::Stdout,
        "stderr" => LogSink::Stderr,
        path => LogSink::File(PathBuf::from(path)),
    };
    let format = match written.format {
        file::LogFormat::Json => LogFormat::Json,
        file::LogFormat::Text => LogFormat::Text,
    };
    Some(AccessLog { sink, format })
}

fn admin(compiler: &mut Compiler<'_>) -> Option<SocketAddr> {
    let Some(bind) = &compiler.loaded.config.admin.bind else { return Some(ADMIN_BIND) };
    if bind.value == "off" {
        return None;
    }
    let parsed = bind.value.parse().ok();
    if parsed.is_none() {
        let message = format!("{:?} is not an address to listen on", bind.value);
        compiler.mistake_with_help(bind.place, message, "write IP:PORT, or `off`");
    }
    parsed
}

/// Whether `text` is a token (RFC 9110 5.6.2), as names of fields and methods are.
pub(super) fn is_token(text: &str) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || special.contains(&b))
}
