//! `ringway inject`: adds the sidecar to workloads of Kubernetes.

use std::io::{IsTerminal as _, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::error::plain;
use crate::file;
use crate::inject::{self, Resources, Serving, Settings};

/// The maximum size of the text of workloads, in bytes.
const TEXT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The arguments of `ringway inject`.
#[derive(Args)]
pub(super) struct InjectArgs {
    /// A file of workloads, YAML or JSON; `-` for standard input, which is the default. The option
    /// can be repeated.
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Serve the webhook at this address instead: HTTPS that answers AdmissionReviews at /inject.
    #[arg(
        long,
        value_name = "IP:PORT",
        conflicts_with = "filename",
        requires = "cert",
        requires = "key"
    )]
    serve: Option<SocketAddr>,
    /// The certificate chain of the webhook, PEM. It is read again when it changes.
    #[arg(long, value_name = "FILE", requires = "serve")]
    cert: Option<PathBuf>,
    /// The private key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "serve")]
    key: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// The sidecar. Annotations of a pod change these settings for it.
#[derive(Args)]
struct SettingsArgs {
    /// The image of the proxy.
    #[arg(long, value_name = "NAME", default_value = inject::IMAGE, value_parser = inject::image)]
    image: String,
    /// When the image is pulled: Always, IfNotPresent or Never.
    #[arg(long, value_name = "POLICY", value_parser = inject::pull_policy)]
    image_pull_policy: Option<String>,
    /// The ConfigMap with the configuration, in the namespace of the workload.
    #[arg(long, value_name = "NAME", default_value = inject::CONFIG,
        value_parser = inject::object_name)]
    config: String,
    /// The Secret with keys and tokens, in the same directory as the configuration. It may be
    /// absent.
    #[arg(long, value_name = "NAME", default_value = inject::CONFIG,
        value_parser = inject::object_name)]
    secret: String,
    /// The user of the proxy. The traffic of this user is not captured.
    #[arg(long, value_name = "UID", default_value_t = inject::USER,
        value_parser = clap::value_parser!(u32).range(1..))]
    user: u32,
    /// The port of the admin interface, for the probes.
    #[arg(long, value_name = "PORT", default_value_t = inject::ADMIN_PORT,
        value_parser = inject::port)]
    admin_port: u16,
    /// Ports of the pod that are not captured: 22,8000-8100.
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = inject::range)]
    exclude_inbound_ports: Vec<String>,
    /// Ports of other hosts that are not captured.
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = inject::range)]
    exclude_outbound_ports: Vec<String>,
    /// Source addresses that are not captured: 10.0.0.0/8, 2001:db8::/32.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = inject::network)]
    exclude_inbound_cidrs: Vec<String>,
    /// Destination addresses that are not captured.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = inject::network)]
    exclude_outbound_cidrs: Vec<String>,
    /// The CPU time that the proxy requests.
    #[arg(long, value_name = "QUANTITY", default_value = "50m", value_parser = inject::quantity)]
    cpu: String,
    /// The memory that the proxy requests.
    #[arg(long, value_name = "QUANTITY", default_value = "32Mi", value_parser = inject::quantity)]
    memory: String,
    /// The limit on the proxy's CPU time. It has a worker for each CPU.
    #[arg(long, value_name = "QUANTITY", default_value = "1", value_parser = inject::quantity)]
    cpu_limit: String,
    /// The limit on the proxy's memory.
    #[arg(long, value_name = "QUANTITY", default_value = "256Mi", value_parser = inject::quantity)]
    memory_limit: String,
}

impl SettingsArgs {
    fn settings(&self) -> Settings {
        let resources = Resources {
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            cpu_limit: self.cpu_limit.clone(),
            memory_limit: self.memory_limit.clone(),
        };
        Settings {
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            config_map: self.config.clone(),
            secret: self.secret.clone(),
            user: self.user,
            admin_port: self.admin_port,
            exclude_inbound_ports: self.exclude_inbound_ports.clone(),
            exclude_outbound_ports: self.exclude_outbound_ports.clone(),
            exclude_inbound_cidrs: self.exclude_inbound_cidrs.clone(),
            exclude_outbound_cidrs: self.exclude_outbound_cidrs.clone(),
            resources,
        }
    }
}

pub(super) fn inject(arguments: &InjectArgs) -> ExitCode {
    let InjectArgs { serve, cert, key, .. } = arguments;
    if let Err((message, help)) = arguments.settings.settings().resources.check() {
        eprintln!("error: {message}\n  help: {help}");
        return ExitCode::FAILURE;
    }
    if let (Some(address), Some(cert), Some(key)) = (serve, cert, key) {
        let serving = Serving { address: *address, certificate: cert.clone(), key: key.clone() };
        return match inject::serve(&serving, arguments.settings.settings()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        };
    }
    inject_texts(arguments)
}

fn inject_texts(arguments: &InjectArgs) -> ExitCode {
    let standard_input = [PathBuf::from("-")];
    let files = match &*arguments.filename {
        [] => &standard_input[..],
        files => files,
    };
    let settings = arguments.settings.settings();
    let (mut out, mut failed) = (String::new(), false);
    for path in files {
        match text(path) {
            Err(message) => {
                eprintln!("error: {message}");
                failed = true;
            }
            Ok(text) => {
                let done = injected(path, &text, &settings);
                failed |= done.is_none();
                let done = done.unwrap_or_default();
                // Two files are two documents.
                if !out.is_empty() && !out.ends_with('\n') {
                    out.push('\n');
                }
                if !out.is_empty() && !done.trim_start().starts_with("---") {
                    out.push_str("---\n");
                }
                out.push_str(&done);
            }
        }
    }
    if failed {
        return ExitCode::FAILURE;
    }
    super::say(&out);
    ExitCode::SUCCESS
}

/// The text with its sidecars. Tells about the objects, and about mistakes, on standard error.
fn injected(path: &Path, text: &str, settings: &Settings) -> Option<String> {
    let name = match path == Path::new("-") {
        true => "stdin".to_owned(),
        false => path.display().to_string(),
    };
    match inject::inject(&name, text, settings) {
        Ok(done) => {
            eprint!("{}{}", done.warnings, inject::summary(&done.reports));
            Some(done.text)
        }
        Err(mistakes) => {
            eprint!("{mistakes}");
            None
        }
    }
}

fn text(path: &Path) -> Result<String, String> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        let input = std::io::stdin();
        if input.is_terminal() {
            return Err(
                "standard input is a terminal; write -f FILE, or pipe workloads into this \
                        command"
                    .to_owned(),
            );
        }
        let read = input.lock().take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes);
        match read {
            Ok(_) if bytes.len() as u64 > TEXT_BYTES_MAX => {
                return Err(format!("standard input has more than {TEXT_BYTES_MAX} bytes"));
            }
            read => read.map(|_| bytes),
        }
    } else {
        file::read(path, TEXT_BYTES_MAX)
    };
    let bytes =
        bytes.map_err(|error| format!("cannot read {}: {}", path.display(), plain(&error)))?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
}
