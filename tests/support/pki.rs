//! Certificates for tests: valid ones and invalid ones.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// Seconds in an hour.
pub const HOUR_S: i64 = 3600;

/// A directory with a CA, an intermediate and their certificates.
pub struct Pki {
    directory: tempfile::TempDir,
    intermediate: Issuer<'static, KeyPair>,
    intermediate_pem: String,
}

/// The properties of a certificate.
#[derive(Clone)]
pub struct Wanted<'a> {
    /// DNS names and URIs.
    pub names: &'a [&'a str],
    /// Start and end of the validity, in seconds from now.
    pub valid_s: (i64, i64),
    /// The extended key usage.
    pub usage: ExtendedKeyUsagePurpose,
    /// The serial number.
    pub serial: u64,
    /// Whether the intermediate is in the file.
    pub with_intermediate: bool,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            names: &["localhost"],
            valid_s: (-HOUR_S, 48 * HOUR_S),
            usage: ExtendedKeyUsagePurpose::Any,
            serial: 7,
            with_intermediate: true,
        }
    }
}

impl Pki {
    /// A fresh CA. Its root is in `ca.pem`.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root_params, root_key) = (authority("test root"), KeyPair::generate().unwrap());
        let root_pem = root_params.self_signed(&root_key).unwrap().pem();
        std::fs::write(directory.path().join("ca.pem"), root_pem).unwrap();
        let root = Issuer::new(root_params, root_key);
        let (params, key) = (authority("test intermediate"), KeyPair::generate().unwrap());
        let intermediate_pem = params.signed_by(&key, &root).unwrap().pem();
        let intermediate = Issuer::new(params, key);
        Self { directory, intermediate, intermediate_pem }
    }

    /// The path of a file of the directory, as text.
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes `NAME.key` and then `NAME.pem`, each by rename.
    pub fn leaf(&self, name: &str, wanted: &Wanted<'_>) {
        let key = KeyPair::generate().unwrap();
        let mut pem = leaf_params(wanted).signed_by(&key, &self.intermediate).unwrap().pem();
        if wanted.with_intermediate {
            pem += &self.intermediate_pem;
        }
        self.replace(&format!("{name}.key"), &key.serialize_pem());
        self.replace(&format!("{name}.pem"), &pem);
    }

    /// Like [`Pki::leaf`], but self-signed.
    pub fn self_signed(&self, name: &str, wanted: &Wanted<'_>) {
        let key = KeyPair::generate().unwrap();
        let pem = leaf_params(wanted).self_signed(&key).unwrap().pem();
        self.replace(&format!("{name}.key"), &key.serialize_pem());
        self.replace(&format!("{name}.pem"), &pem);
    }

    /// Adds a certificate to `NAME.pem` that has expired and that no path needs: the root, signed
    /// by an older root.
    pub fn add_old_root(&self, name: &str) {
        let older = Issuer::new(authority("older root"), KeyPair::generate().unwrap());
        let mut params = authority("test root");
        params.not_before = OffsetDateTime::now_utc() - Duration::hours(48);
        params.not_after = OffsetDateTime::now_utc() - Duration::hours(24);
        let old = params.signed_by(&KeyPair::generate().unwrap(), &older).unwrap().pem();
        let file = format!("{name}.pem");
        self.replace(&file, &(self.read(&file) + &old));
    }

    /// Writes a revocation list of the intermediate to `NAME`. It revokes these serial numbers.
    pub fn revocation_list(&self, name: &str, serials: &[u64]) {
        let now = OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - Duration::hours(1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::hours(48),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.replace(name, &list.signed_by(&self.intermediate).unwrap().pem().unwrap());
    }

    /// The content of a file in the directory.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    /// The end of the validity of the certificate in `NAME.pem`, in Unix seconds.
    pub fn not_after_unix_s(&self, name: &str) -> u64 {
        let pem = self.read(&format!("{name}.pem"));
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        pem.parse_x509().unwrap().validity().not_after.timestamp() as u64
    }

    /// Replaces a file of the directory by rename.
    pub fn replace(&self, name: &str, text: &str) {
        let new: PathBuf = self.directory.path().join(format!(".{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.directory.path().join(name)).unwrap();
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(wanted: &Wanted<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, wanted.names[0]);
    params.subject_alt_names = wanted
        .names
        .iter()
        .map(|name| match name.contains("://") {
            true => SanType::URI((*name).try_into().unwrap()),
            false => SanType::DnsName((*name).try_into().unwrap()),
        })
        .chain([SanType::IpAddress([127, 0, 0, 1].into())])
        .collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match wanted.usage {
        ExtendedKeyUsagePurpose::Any => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        ref only => vec![only.clone()],
    };
    params.serial_number = Some(SerialNumber::from(wanted.serial));
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::seconds(wanted.valid_s.0);
    params.not_after = now + Duration::seconds(wanted.valid_s.1);
    params
}
