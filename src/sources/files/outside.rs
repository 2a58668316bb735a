//! Files of other grammars: objects of Istio, of the Gateway API and of SMI.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, SourceMap};
use super::grammar::sources::{GatewayApi, Istio, Sources};
use super::grammar::tls::{ListenerTls, ServerFiles};
use super::materials::path_of;
use super::node::{self, Kind, Node};
use super::values::{Entries, OneOrMany, Placed};
use super::{Parts, lower, read};
use crate::compile::CLUSTER_DOMAIN;
use crate::model::Model;
use crate::sources::{gateway_api, istio, smi};

/// Certificates by name.
type Certificates = Entries<Placed<ListenerTls>>;

/// The files of other grammars, as indices into the [`SourceMap`].
#[derive(Clone, Default)]
pub(super) struct Outside {
    istio: Vec<u16>,
    gateway_api: Vec<u16>,
    smi: Vec<u16>,
    /// The objects of Kubernetes, each with the name of its kind.
    pub(super) objects: Vec<u16>,
    /// The directories of the files, to watch them for changes.
    pub(super) directories: Vec<PathBuf>,
    /// Whether a file could not be read.
    pub(super) unread: bool,
}

impl Outside {
    /// Whether the file with this index has objects.
    pub(super) fn has(&self, file: u16) -> bool {
        [&self.istio, &self.gateway_api, &self.smi].into_iter().any(|files| files.contains(&file))
    }

    /// Reads the files that `written` names.
    pub(super) fn read(
        written: &Sources,
        sources: &mut SourceMap,
        mistakes: &mut Vec<Diagnostic>,
        short: &mut bool,
    ) -> Self {
        let mut outside = Self::default();
        if let Some(istio) = &written.istio {
            outside.istio = outside.files(&istio.value.files, sources, mistakes, short);
        }
        if let Some(gateway_api) = &written.gateway_api {
            let files = &gateway_api.value.files;
            outside.gateway_api = outside.files(files, sources, mistakes, short);
        }
        if let Some(smi) = &written.smi {
            outside.smi = outside.files(&smi.value.files, sources, mistakes, short);
        }
        outside
    }

    fn files(
        &mut self,
        patterns: &OneOrMany<Placed<String>>,
        sources: &mut SourceMap,
        mistakes: &mut Vec<Diagnostic>,
        short: &mut bool,
    ) -> Vec<u16> {
        let mut files = Vec::new();
        for pattern in &patterns.0 {
            for path in self.found(pattern, sources, mistakes) {
                let before = mistakes.len();
                let text = read::read_file(&path, mistakes, short);
                self.unread |= mistakes.len() > before;
                let Some(text) = text else { continue };
                match sources.add(&path.display().to_string(), text) {
                    Some(file) => files.push(file),
                    None => mistakes.push(Diagnostic::nowhere("more than 65535 files")),
                }
            }
        }
        files
    }

    /// The files that a pattern matches.
    fn found(
        &mut self,
        pattern: &Placed<String>,
        sources: &SourceMap,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Vec<PathBuf> {
        let whole = path_of(sources, pattern);
        self.directories.extend(directories(&whole));
        let mut wrong = |message: String, help: &str| {
            mistakes.push(Diagnostic::at(pattern.place, message).help(help));
            Vec::new()
        };
        let found = match glob::glob(&whole.display().to_string()) {
            Ok(found) => found,
            Err(error) => {
                let help = "write a path such as istio/*.yaml";
                return wrong(format!("{:?} is not a pattern: {}", pattern.value, error.msg), help);
            }
        };
        let hidden = |path: &Path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
        };
        let found: Vec<PathBuf> =
            found.filter_map(Result::ok).filter(|path| path.is_file() && !hidden(path)).collect();
        if found.is_empty() {
            let help = "a relative path begins at the directory of this file";
            return wrong(format!("no file matches {}", whole.display()), help);
        }
        found
    }

    /// Adds the objects of all files and of Kubernetes to `model`. Those of Istio come first,
    /// because the others may refer to their services.
    pub(super) fn add(
        &self,
        written: &Sources,
        parts: &Parts<'_>,
        model: &mut Model,
        mistakes: &mut Vec<Diagnostic>,
    ) {
        let Parts { sources, materials, .. } = parts;
        let secrets = self.secrets(parts, mistakes);
        let secrets = lower::certificates(&secrets, sources, materials, mistakes);
        let certificates = |written: &Certificates, mistakes: &mut Vec<Diagnostic>| {
            // Those of the files come first.
            let mut all = lower::certificates(written, sources, materials, mistakes);
            all.extend(secrets.iter().cloned());
            all
        };
        let kubernetes = written.kubernetes.as_ref().map(|it| &it.value);
        let of_cluster = kubernetes.and_then(|it| it.cluster_domain.as_ref());
        let domain = |own: &Option<Placed<String>>| {
            let domain = own.as_ref().or(of_cluster);
            domain.map_or(CLUSTER_DOMAIN, |domain| domain.value.as_str()).to_owned()
        };
        let istio = written.istio.as_ref().map(|it| it.value.clone());
        if let Some(written) = istio.or_else(|| kubernetes.map(|_| Istio::default())) {
            let label = |(name, value): &(Placed<String>, Placed<String>)| {
                (name.value.clone(), value.value.clone())
            };
            let settings = istio::Settings {
                namespace: or(&written.namespace, "default"),
                root_namespace: or(&written.root_namespace, "istio-system"),
                domain: domain(&written.domain),
                labels: written.labels.0.iter().map(label).collect(),
                address: address(&written.address, mistakes),
                certificates: certificates(&written.certificates, mistakes),
                has_services: kubernetes.is_some(),
            };
            let mut documents = documents(parts, &self.istio, mistakes);
            let is_its = |kind: &str| kind == SERVICES || kind.ends_with(ISTIO);
            documents.extend(self.remote(sources, is_its, mistakes).into_iter().map(|(_, it)| it));
            istio::add(&documents, settings, sources, model, mistakes);
        }
        let gateway_api = written.gateway_api.as_ref().map(|it| it.value.clone());
        if let Some(written) = gateway_api.or_else(|| kubernetes.map(|_| GatewayApi::default())) {
            let settings = gateway_api::Settings {
                namespace: or(&written.namespace, "default"),
                domain: domain(&written.domain),
                address: address(&written.address, mistakes),
                classes: written.classes.0.iter().map(|class| class.value.clone()).collect(),
                certificates: certificates(&written.certificates, mistakes),
            };
            let mut documents = documents(parts, &self.gateway_api, mistakes);
            let is_its = |kind: &str| kind.ends_with(GATEWAY_API);
            documents.extend(self.remote(sources, is_its, mistakes).into_iter().map(|(_, it)| it));
            gateway_api::add(&documents, settings, sources, model, mistakes);
        }
        if let Some(Placed { value: written, .. }) = &written.smi {
            let namespace = or(&written.namespace, "default");
            let documents = documents(parts, &self.smi, mistakes);
            let account = written.account.as_ref().map(|account| account.value.as_str());
            smi::add(&documents, (&namespace, account), sources, model, mistakes);
        }
    }

    /// The Secrets of Kubernetes, each as the certificate `NAMESPACE/NAME`.
    fn secrets(&self, parts: &Parts<'_>, mistakes: &mut Vec<Diagnostic>) -> Certificates {
        let Parts { sources, .. } = parts;
        let found = self.remote(sources, |kind| kind == SECRETS, mistakes);
        let secret = |(name, node): (String, Node)| {
            let Kind::Map(fields) = &node.kind else { return None };
            let part = |wanted: &str| {
                let (_, value) = fields.iter().find(|(key, _)| key.text == wanted)?;
                Some(Placed { place: value.place, value: value.text().to_owned() })
            };
            let (cert, key) = (part("cert")?, part("key")?);
            let files = Box::new(ServerFiles { cert, key, ..ServerFiles::default() });
            let tls = Placed { place: node.place, value: ListenerTls::Files(files) };
            Some((Placed { place: node.place, value: name }, tls))
        };
        Entries(found.into_iter().filter_map(secret).collect())
    }

    /// The objects of Kubernetes whose kind is wanted, each with its namespace and name. Their
    /// texts are literal: they must not read the environment of this process.
    fn remote(
        &self,
        sources: &SourceMap,
        is_wanted: impl Fn(&str) -> bool,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Vec<(String, Node)> {
        let files = sources.files();
        let named = |&file: &u16| {
            let (name, _) = files.get(usize::from(file))?;
            let (kind, name) = name.strip_prefix("kubernetes:")?.split_once('/')?;
            is_wanted(kind).then_some((file, name))
        };
        let parse = |(file, name): (u16, &str)| {
            let node = node::parse(file, sources.text(file), mistakes)?;
            Some((name.to_owned(), node))
        };
        self.objects.iter().filter_map(named).filter_map(parse).collect()
    }
}

/// The ends of the kinds of Istio and of the Gateway API, and the kinds of Kubernetes itself.
const ISTIO: &str = ".istio.io";
const GATEWAY_API: &str = ".gateway.networking.k8s.io";
const SERVICES: &str = "services";
const SECRETS: &str = "secrets";

/// The objects in files of this machine, with the values of variables.
fn documents(parts: &Parts<'_>, files: &[u16], mistakes: &mut Vec<Diagnostic>) -> Vec<Node> {
    let mut documents = Vec::new();
    for &file in files {
        documents.extend(node::parse_all(file, parts.sources.text(file), mistakes));
    }
    documents.iter_mut().for_each(|node| read::expand(node, parts.environment, mistakes));
    documents
}

fn or(text: &Option<Placed<String>>, default: &str) -> String {
    text.as_ref().map_or(default, |text| text.value.as_str()).to_owned()
}

/// The address at which gateways listen.
fn address(written: &Option<Placed<String>>, mistakes: &mut Vec<Diagnostic>) -> IpAddr {
    let Some(written) = written else { return Ipv4Addr::UNSPECIFIED.into() };
    written.value.parse().unwrap_or_else(|_| {
        let message = format!("{:?} is not an IP address", written.value);
        let help = "write an address without a port: gateways name the ports";
        mistakes.push(Diagnostic::at(written.place, message).help(help));
        Ipv4Addr::UNSPECIFIED.into()
    })
}

/// The directories in which new files may match `pattern`: that before the first wildcard, and
/// those that the wildcards match.
fn directories(pattern: &Path) -> Vec<PathBuf> {
    let Some(parent) = pattern.parent() else { return Vec::new() };
    let fixed = parent.ancestors().find(|path| !path.to_string_lossy().contains(['*', '?', '[']));
    let matching = glob::glob(&parent.display().to_string()).into_iter().flatten();
    let mut all: Vec<PathBuf> = matching.filter_map(Result::ok).collect();
    all.extend(fixed.map(Path::to_owned));
    all.sort();
    all.dedup();
    all
}
