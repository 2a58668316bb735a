//! `ringway ca`: a certificate authority in a directory, for a mesh without one.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use crate::ca::{self, CaError, Issuer, Plan, Request};
use crate::identity::{SpiffeError, SpiffeId};

/// The maximum lifetime that the commands accept. A longer one is probably a typing error.
const LIFETIME_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

#[derive(Subcommand)]
pub(super) enum CaCommand {
    /// Create a CA: a root, and an intermediate that signs workload certificates.
    #[command(after_help = "Examples:\n  ringway ca init\n  \
        ringway ca init --dir /etc/ringway/ca --trust-domain prod.example.com\n\n\
        It never overwrites a file. Afterwards take root.key offline: only `ca renew` \
        needs it.")]
    Init(InitArgs),
    /// Issue a certificate to a workload: a SPIFFE X.509-SVID for both sides of mutual TLS.
    #[command(after_help = "Examples:\n  \
        ringway ca issue spiffe://cluster.local/ns/demo/sa/shop\n  \
        ringway ca issue spiffe://cluster.local/ns/demo/sa/shop --out certs/ --dns shop.local\n\n\
        Writes OUT.pem (the certificate and the intermediate) and OUT.key (PKCS#8, mode 0600), \
        and replaces existing files: run it again to renew.")]
    Issue(IssueArgs),
    /// Create a new intermediate before the old one expires. It needs root.key.
    #[command(after_help = "Example:\n  ringway ca renew --dir /etc/ringway/ca\n\n\
        Certificates that the old intermediate has issued stay valid, and peers keep their \
        roots.pem.")]
    Renew(RenewArgs),
}

#[derive(Args)]
pub(super) struct InitArgs {
    /// The directory for the CA. It is created with mode 0700 if it is missing.
    #[arg(long, default_value = "ca")]
    dir: PathBuf,
    /// The trust domain of every workload ID.
    #[arg(long, default_value = "cluster.local", value_parser = trust_domain)]
    trust_domain: SpiffeId,
    /// The CA's name in its certificates.
    #[arg(long, default_value = "Ringway CA")]
    name: String,
    /// Lifetime of the root.
    #[arg(long, default_value = "10y", value_parser = lifetime)]
    lifetime: Duration,
    /// Lifetime of the intermediate.
    #[arg(long, default_value = "1y", value_parser = lifetime)]
    intermediate_lifetime: Duration,
}

#[derive(Args)]
pub(super) struct IssueArgs {
    /// The workload's ID: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME, or any other path.
    id: SpiffeId,
    /// The directory of the CA.
    #[arg(long, default_value = "ca")]
    dir: PathBuf,
    /// The files OUT.pem and OUT.key. In a directory (DIR/) they get the workload's name.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Lifetime of the certificate. It never ends after the intermediate.
    #[arg(long, default_value = "24h", value_parser = lifetime)]
    lifetime: Duration,
    /// An additional DNS name. You may repeat it.
    #[arg(long)]
    dns: Vec<String>,
    /// An additional IP address. You may repeat it.
    #[arg(long)]
    ip: Vec<IpAddr>,
}

#[derive(Args)]
pub(super) struct RenewArgs {
    /// The directory of the CA.
    #[arg(long, default_value = "ca")]
    dir: PathBuf,
    /// Lifetime of the intermediate. It never ends after the root.
    #[arg(long, default_value = "1y", value_parser = lifetime)]
    lifetime: Duration,
}

pub(super) fn ca(command: CaCommand) -> ExitCode {
    let now = SystemTime::now();
    let done = match command {
        CaCommand::Init(arguments) => init(arguments, now),
        CaCommand::Issue(arguments) => issue(arguments, now),
        CaCommand::Renew(arguments) => renew(&arguments, now),
    };
    match done {
        Ok(text) => {
            // Ignore the error of a closed pipe (`| head`): the command has done its work.
            std::io::stdout().write_all(text.as_bytes()).ok();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn init(arguments: InitArgs, now: SystemTime) -> Result<String, CaError> {
    let InitArgs { dir, trust_domain, name, lifetime, intermediate_lifetime } = arguments;
    let plan = Plan { trust_domain, name, root_lifetime: lifetime, intermediate_lifetime };
    let made = ca::init(&dir, &plan, now)?;
    let (root, intermediate) = (date(made.root_until), date(made.intermediate_until));
    let shown = dir.display();
    let trust_domain = plan.trust_domain.trust_domain();
    Ok(format!(
        "made a CA for the trust domain {trust_domain} in {shown}:
  root.pem          the root certificate, valid until {root}
  root.key          its key: take it offline; only `ringway ca renew` needs it
  intermediate.pem  signs workload certificates, valid until {intermediate}
  intermediate.key  its key: anyone who can read it can impersonate any workload
  roots.pem         the trust bundle: copy it to every peer
next:
  ringway ca issue {id}/ns/default/sa/web{option}
",
        id = plan.trust_domain,
        option = directory_option(&dir),
    ))
}

fn issue(arguments: IssueArgs, now: SystemTime) -> Result<String, CaError> {
    let IssueArgs { id, dir, out, lifetime, dns, ip: ips } = arguments;
    let issuer = Issuer::open(&dir)?;
    let request = Request { id, dns, ips, lifetime, now };
    let issued = issuer.issue(&request)?;
    let saved = issued.save(&out, &request.id)?;
    if issued.not_after == issuer.not_after() {
        eprintln!(
            "warning: the certificate ends with the intermediate, at {}: \
             make a new one with `ringway ca renew{}`",
            date(issued.not_after),
            directory_option(&dir),
        );
    }
    Ok(format!(
        "issued {} until {}:
  {}  the certificate and the intermediate
  {}  its key
try:
  openssl verify -CAfile {} -untrusted {certificate} {certificate}
",
        request.id,
        date(issued.not_after),
        saved.certificate.display(),
        saved.key.display(),
        dir.join(ca::ROOTS).display(),
        certificate = saved.certificate.display(),
    ))
}

fn renew(arguments: &RenewArgs, now: SystemTime) -> Result<String, CaError> {
    let until = ca::renew(&arguments.dir, arguments.lifetime, now)?;
    let path = arguments.dir.join(ca::INTERMEDIATE_CERTIFICATE);
    Ok(format!("made a new intermediate, {}, until {}\n", path.display(), date(until)))
}

fn date(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// The option `--dir` for a command line in a message. Empty if the directory is the default.
fn directory_option(directory: &Path) -> String {
    match directory.to_str() {
        Some("ca") => String::new(),
        _ => format!(" --dir {}", directory.display()),
    }
}

fn trust_domain(text: &str) -> Result<SpiffeId, SpiffeError> {
    SpiffeId::of_trust_domain(text)
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if lifetime < Duration::from_secs(1) {
        return Err("it must be 1s at least".to_owned());
    }
    if lifetime > LIFETIME_MAX {
        return Err("it must be 100y at most".to_owned());
    }
    Ok(lifetime)
}
