//! How the API server is reached: as a kubeconfig says, or with the service account of this pod.
//! The files are read for each connection, so that renewed tokens and certificates are used.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki_types::pem::PemObject as _;
use pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use crate::compile::KubernetesSource;
use crate::error::plain;
use crate::file;
use crate::sources::fetch::authorities;
use crate::sources::yaml::node::{self, Kind, Node};
use crate::tls::PROVIDER;

/// The maximum size of a kubeconfig, a token or a certificate file.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The directory of the service account of a pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The address, the TLS settings and the credentials of an API server.
pub(super) struct Access {
    /// The host.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// The beginning of all paths, without a slash at its end.
    pub(super) path: String,
    /// The TLS settings, and the name that the certificate must have. `None` means no TLS.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The bearer token.
    pub(super) token: Option<Zeroizing<String>>,
}

/// Reads how the API server is reached.
///
/// # Errors
/// A sentence about a file that is missing or wrong.
pub(super) fn load(source: &KubernetesSource) -> Result<Access, String> {
    if let Some(path) = &source.kubeconfig {
        return of_file(path, source.context.as_deref());
    }
    let variable = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty());
    if let Some(paths) = variable {
        let first = std::env::split_paths(&paths).find(|path| path.exists());
        let none = || format!("$KUBECONFIG: no file at {}", paths.to_string_lossy());
        return of_file(&first.ok_or_else(none)?, source.context.as_deref());
    }
    let token = Path::new(ACCOUNT).join("token");
    if let Ok(host) = std::env::var("KUBERNETES_SERVICE_HOST")
        && token.exists()
    {
        let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_default();
        let url = match host.contains(':') {
            true => format!("https://[{host}]:{}", port.parse().unwrap_or(443)),
            false => format!("https://{host}:{}", port.parse().unwrap_or(443)),
        };
        let ca = read(&Path::new(ACCOUNT).join("ca.crt"))?;
        return access(&url, None, Some(&ca), None, Some(secret(&token)?));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    match home.map(|home| home.join(".kube/config")).filter(|path| path.exists()) {
        Some(path) => of_file(&path, source.context.as_deref()),
        None => Err("there is no $KUBECONFIG, no service account of a pod and no ~/.kube/config; \
                     write `kubeconfig: FILE`"
            .to_owned()),
    }
}

fn of_file(path: &Path, context: Option<&str>) -> Result<Access, String> {
    let bytes = Zeroizing::new(read(path)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(path, "this is not UTF-8 text"))?;
    let mut mistakes = Vec::new();
    let root = node::parse(0, text, &mut mistakes);
    if let Some(mistake) = mistakes.first() {
        return Err(wrong(path, &mistake.message));
    }
    let root = root.ok_or_else(|| wrong(path, "the file is empty"))?;
    of_node(&root, path, context).map_err(|why| wrong(path, &why))
}

fn wrong(path: &Path, why: &str) -> String {
    format!("{}: {why}", path.display())
}

fn of_node(root: &Node, path: &Path, context: Option<&str>) -> Result<Access, String> {
    let current = value(root, "current-context").unwrap_or_default();
    let context = context.unwrap_or(current);
    let chosen = named(root, "contexts", context, "context")
        .ok_or_else(|| format!("there is no context {context:?}"))?;
    let name = value(chosen, "cluster").unwrap_or_default();
    let cluster = named(root, "clusters", name, "cluster")
        .ok_or_else(|| format!("there is no cluster {name:?}"))?;
    let server =
        value(cluster, "server").ok_or_else(|| format!("the cluster {name:?} has no `server`"))?;
    if value(cluster, "insecure-skip-tls-verify") == Some("true") {
        return Err("`insecure-skip-tls-verify` is not supported: write \
                    `certificate-authority-data`, the certificate of its CA"
            .to_owned());
    }
    if value(cluster, "proxy-url").is_some() {
        return Err("`proxy-url` is not supported".to_owned());
    }
    let directory = path.parent().unwrap_or_else(|| Path::new(""));
    let ca = part(cluster, "certificate-authority", directory)?;
    let user = value(chosen, "user").and_then(|user| named(root, "users", user, "user"));
    let (mut own, mut token) = (None, None);
    if let Some(user) = user {
        for other in ["exec", "auth-provider", "username"] {
            if entry(user, other).is_some() {
                return Err(format!(
                    "`{other}` is not supported: write `tokenFile` or `client-certificate`"
                ));
            }
        }
        let certificate = part(user, "client-certificate", directory)?;
        let key = part(user, "client-key", directory)?;
        own = certificate.zip(key.map(Zeroizing::new));
        token = match value(user, "tokenFile") {
            Some(file) => Some(secret(&directory.join(file))?),
            None => value(user, "token").map(|token| Zeroizing::new(token.to_owned())),
        };
    }
    access(server, value(cluster, "tls-server-name"), ca.as_deref(), own, token)
}

fn access(
    url: &str,
    name: Option<&str>,
    ca: Option<&[u8]>,
    own: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    token: Option<Zeroizing<String>>,
) -> Result<Access, String> {
    let uri: http::Uri = url.parse().map_err(|_| format!("{url:?} is not a URL"))?;
    let is_tls = uri.scheme_str() != Some("http");
    let host = uri.host().ok_or_else(|| format!("{url:?} has no host"))?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    if token.as_ref().is_some_and(|token| token.contains(|c: char| !c.is_ascii_graphic())) {
        return Err("the token is not one line of letters, digits and signs".to_owned());
    }
    let tls = match is_tls {
        false => None,
        true => {
            let name = name.unwrap_or(&host).to_owned();
            let server = ServerName::try_from(name.clone());
            let server = server.map_err(|_| format!("{name:?} is not the name of a server"))?;
            Some((Arc::new(client(ca, own)?), server))
        }
    };
    let path = uri.path().trim_end_matches('/').to_owned();
    Ok(Access { host, port, path, tls, token })
}

/// The TLS settings of a client that trusts `ca`, and presents its `own` certificate and key.
fn client(
    ca: Option<&[u8]>,
    own: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities(ca)?);
    if added == 0 {
        return Err("there is no certificate in the file of the CA".to_owned());
    }
    let refused = |error: rustls::Error| format!("TLS: {}", plain(&error));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Vec<CertificateDer<'static>> =
                CertificateDer::pem_slice_iter(&certificate).filter_map(Result::ok).collect();
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|_| "there is no private key in `client-key`".to_owned())?;
            builder.with_client_auth_cert(chain, key).map_err(refused)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The bytes of the field `name`, which names a file, or of `name-data`, which has them in base64.
fn part(node: &Node, name: &str, directory: &Path) -> Result<Option<Vec<u8>>, String> {
    if let Some(text) = value(node, &format!("{name}-data")) {
        let bytes = STANDARD.decode(text).map_err(|_| format!("`{name}-data` is not base64"))?;
        return Ok(Some(bytes));
    }
    value(node, name).map(|file| read(&directory.join(file))).transpose()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    file::read(path, FILE_BYTES_MAX)
        .map_err(|error| format!("cannot read {}: {}", path.display(), plain(&error)))
}

/// The token in a file.
fn secret(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = Zeroizing::new(read(path)?);
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    match text.is_empty() {
        true => Err(format!("there is no token in {}", path.display())),
        false => Ok(Zeroizing::new(text.to_owned())),
    }
}

fn entry<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Kind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
}

/// The text of the field `name`. `None` if it is empty.
fn value<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    entry(node, name).map(Node::text).filter(|text| !text.is_empty())
}

/// The field `inner` of the element of `list` with this name.
fn named<'n>(root: &'n Node, list: &str, name: &str, inner: &str) -> Option<&'n Node> {
    let Kind::List(items) = &entry(root, list)?.kind else { return None };
    let item = items.iter().find(|item| value(item, "name") == Some(name))?;
    entry(item, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, context: Option<&str>) -> Result<Access, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "sesame\n").unwrap();
        let path = directory.path().join("config");
        std::fs::write(&path, text).unwrap();
        let name = format!("{}: ", path.display());
        of_file(&path, context).map_err(|why| why.replace(&name, ""))
    }

    const CLUSTERS: &str = "
contexts:
- {name: a, context: {cluster: one, user: u}}
- {name: b, context: {cluster: two}}
- {name: c, context: {cluster: none}}
clusters:
- {name: one, cluster: {server: 'http://[::1]:8001/k8s/'}}
- {name: two, cluster: {server: http://api.internal}}
users:
- {name: u, user: {tokenFile: token}}
current-context: a
";

    #[test]
    fn a_context_names_a_cluster_and_a_user() {
        let first = of(CLUSTERS, None).unwrap();
        assert_eq!((first.host.as_str(), first.port, first.path.as_str()), ("::1", 8001, "/k8s"));
        assert_eq!(first.token.as_deref().map(String::as_str), Some("sesame"));
        let second = of(CLUSTERS, Some("b")).unwrap();
        assert_eq!((second.host.as_str(), second.port), ("api.internal", 80));
        assert!(second.token.is_none() && second.tls.is_none());
    }

    #[test]
    fn a_wrong_kubeconfig_is_told() {
        let cluster = |rest: &str| {
            format!(
                "contexts: [{{name: a, context: {{cluster: x, user: u}}}}]\ncurrent-context: a\n\
                 {rest}"
            )
        };
        let user = |user: &str| {
            let server = "clusters: [{name: x, cluster: {server: 'http://a'}}]\n";
            cluster(&format!("{server}users: [{{name: u, user: {user}}}]"))
        };
        for (text, why) in [
            (String::new(), "the file is empty"),
            ("a: [".to_owned(), ""),
            (CLUSTERS.replace("current-context: a", ""), "there is no context \"\""),
            (CLUSTERS.replace("current-context: a", "current-context: c"), "cluster \"none\""),
            (cluster("clusters: [{name: x, cluster: {}}]"), "has no `server`"),
            (
                cluster(
                    "clusters: [{name: x, cluster: {server: 'https://a', \
                         insecure-skip-tls-verify: true}}]",
                ),
                "certificate-authority-data",
            ),
            (
                cluster(
                    "clusters: [{name: x, cluster: {server: 'https://a', \
                         certificate-authority-data: '%'}}]",
                ),
                "is not base64",
            ),
            (
                cluster(
                    "clusters: [{name: x, cluster: {server: 'https://a', \
                         certificate-authority-data: YQ==}}]",
                ),
                "no certificate",
            ),
            (user("{exec: {command: aws}}"), "`exec` is not supported"),
            (user("{token: 'a b'}"), "one line of letters"),
            (user("{tokenFile: nowhere}"), "cannot read"),
        ] {
            let found = of(&text, None).err().unwrap_or_default();
            assert!(!found.is_empty() && found.contains(why), "{text}: {found}");
        }
    }
}
