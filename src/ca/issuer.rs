//! Issues certificates for workloads.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pki_types::DnsName;
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa};
use rcgen::{KeyUsagePurpose, SanType};
use zeroize::Zeroizing;

use super::files::{self, Access};
use super::signer::{self, Signer};
use super::{CaError, INTERMEDIATE_CERTIFICATE, INTERMEDIATE_KEY, ROOT_CERTIFICATE, ROOTS};
use crate::identity::SpiffeId;

/// Issues certificates with the intermediate of a CA. It does not need the root key. It reads the
/// files only once, so a new issuer must be opened after `ringway ca renew`.
#[derive(Debug)]
pub struct Issuer(Signer);

/// A request for a certificate.
#[derive(Clone, Debug)]
pub struct Request {
    /// The SPIFFE ID of the workload. It must be in the trust domain of the CA and have a path.
    pub id: SpiffeId,
    /// DNS names for the certificate, also `*.example.com`.
    pub dns: Vec<String>,
    /// IP addresses for the certificate.
    pub ips: Vec<IpAddr>,
    /// The lifetime. Fractions of a second are dropped. The certificate never outlives the
    /// intermediate.
    pub lifetime: Duration,
    /// The current time.
    pub now: SystemTime,
}

/// A certificate with its key. `Debug` does not show the key, and the memory of the key is wiped
/// when it is dropped.
pub struct Issued {
    /// The certificate, and the intermediates that lead to the root.
    pub chain_pem: String,
    /// The private key: PKCS#8 in PEM.
    pub key_pem: Zeroizing<String>,
    /// The start of the validity, a little before `now`: see [`super::CLOCK_SKEW`].
    pub not_before: SystemTime,
    /// The end of the validity.
    pub not_after: SystemTime,
}

/// The paths of the files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The file with the certificate and its intermediates.
    pub certificate: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
}

impl Issuer {
    /// Reads the intermediate certificate and its key.
    ///
    /// # Errors
    /// When there is no CA, or its files cannot be read or do not match.
    pub fn open(directory: &Path) -> Result<Self, CaError> {
        let certificate = directory.join(INTERMEDIATE_CERTIFICATE);
        if !files::exists(&certificate)? {
            return Err(CaError::NoCa(directory.to_owned()));
        }
        Signer::open(&certificate, &directory.join(INTERMEDIATE_KEY)).map(Self)
    }

    /// The trust domain of the CA, for example `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        self.0.trust_domain.trust_domain()
    }

    /// The expiry of the intermediate. Certificates that it signs never outlive it.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// Issues a certificate with a new key: an X.509-SVID (SPIFFE X509-SVID, sections 2 to 4) for
    /// both sides of mTLS.
    ///
    /// # Errors
    /// When the ID is in another trust domain or names no workload, a DNS name is invalid, the
    /// lifetime is impossible, or the intermediate has expired.
    pub fn issue(&self, request: &Request) -> Result<Issued, CaError> {
        let id = &request.id;
        if id.trust_domain() != self.trust_domain() {
            let trust_domain = self.trust_domain().to_owned();
            return Err(CaError::Foreign { id: id.clone(), trust_domain });
        }
        if id.path().is_empty() {
            return Err(CaError::NoWorkload(id.clone()));
        }
        let remedy = "make a new intermediate with `ringway ca renew`";
        let span = self.0.span(request.now, request.lifetime, remedy)?;
        let mut params = CertificateParams::default();
        // The identity is the URI. An empty subject makes the URI mandatory, so no peer can use a
        // common name instead.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names(request)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = signer::new_key()?;
        let certificate = self.0.sign(params, &span, &key)?;
        Ok(Issued {
            chain_pem: certificate + &self.0.chain_pem,
            key_pem: signer::key_pem(&key),
            not_before: span.not_before,
            not_after: span.not_after,
        })
    }
}

impl Issued {
    /// Writes `OUT.pem` and `OUT.key`. If `out` is a directory or ends with a slash, the name of
    /// the files is the last part of `id`. Each file is replaced atomically, the key first. A
    /// reader that reads between the two writes gets a pair that does not match, and must read
    /// again after the second.
    ///
    /// # Errors
    /// When the files belong to a CA, or writing fails.
    pub fn save(&self, out: &Path, id: &SpiffeId) -> Result<Saved, CaError> {
        let prefix = if out.as_os_str().as_encoded_bytes().ends_with(b"/") || out.is_dir() {
            files::create_directory(out)?;
            let name = id.path().rsplit('/').next().unwrap_or_default();
            // These paths are shown to users, so `./` is left out.
            if out == Path::new(".") { PathBuf::from(name) } else { out.join(name) }
        } else {
            out.to_owned()
        };
        let with = |extension: &str| {
            let mut path = OsString::from(&prefix);
            path.push(extension);
            PathBuf::from(path)
        };
        let saved = Saved { certificate: with(".pem"), key: with(".key") };
        if belongs_to_a_ca(&prefix, &saved.certificate) {
            return Err(CaError::Reserved(saved.certificate));
        }
        files::replace(&saved.key, &self.key_pem, Access::Owner)?;
        files::replace(&saved.certificate, &self.chain_pem, Access::All)?;
        Ok(saved)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { not_before, not_after, .. } = self;
        let mut shown = f.debug_struct("Issued");
        shown.field("not_before", not_before).field("not_after", not_after);
        shown.finish_non_exhaustive()
    }
}

/// Whether writing to these paths would overwrite a file of a CA: its certificate, or a key whose
/// certificate was moved. A workload with the name `root` can still get a certificate in another
/// directory.
fn belongs_to_a_ca(prefix: &Path, certificate: &Path) -> bool {
    let names = [ROOT_CERTIFICATE, INTERMEDIATE_CERTIFICATE, ROOTS];
    let reserved =
        certificate.file_name().is_some_and(|file| names.iter().any(|name| file == *name));
    let mut beside = names.iter().map(|name| prefix.with_file_name(name));
    signer::is_ca(certificate) || (reserved && beside.any(|path| signer::is_ca(&path)))
}

/// Returns the names for the certificate: exactly one URI, which comes first (X509-SVID, section
/// 2).
fn names(request: &Request) -> Result<Vec<SanType>, CaError> {
    let mut names = vec![SanType::URI(request.id.as_str().try_into()?)];
    for name in &request.dns {
        let host = name.strip_prefix("*.").unwrap_or(name);
        DnsName::try_from(host).map_err(|_| CaError::DnsName(name.clone()))?;
        names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    names.extend(request.ips.iter().copied().map(SanType::IpAddress));
    Ok(names)
}
