//! Creates a CA, and renews its intermediate certificate.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::files::{self, Access};
use super::signer::{self, Signer, Span};
use super::{
    CaError, INTERMEDIATE_CERTIFICATE, INTERMEDIATE_KEY, ROOT_CERTIFICATE, ROOT_KEY, ROOTS,
};
use crate::identity::SpiffeId;

/// The maximum number of characters of a CA's name. The name with its suffix must fit into a common
/// name (RFC 5280: 64 characters).
const NAME_CHARS_MAX: usize = 50;

/// The settings of a new CA.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The ID of the trust domain. The CA issues certificates for no other domain.
    pub trust_domain: SpiffeId,
    /// The name for the subject of the certificates: 1 to 50 characters.
    pub name: String,
    /// How long the root is valid.
    pub root_lifetime: Duration,
    /// How long the intermediate is valid. It never outlives the root.
    pub intermediate_lifetime: Duration,
}

/// The expiry times of a new CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The expiry of the root certificate.
    pub root_until: SystemTime,
    /// The expiry of the intermediate certificate.
    pub intermediate_until: SystemTime,
}

/// Creates a root and an intermediate certificate in `directory`. Creates the directory if it is
/// missing.
///
/// # Errors
/// When one of the files exists, because no file is ever overwritten. When writing fails; the files
/// that were written are then removed.
pub fn init(directory: &Path, plan: &Plan, now: SystemTime) -> Result<Made, CaError> {
    if !(1..=NAME_CHARS_MAX).contains(&plan.name.chars().count()) {
        return Err(CaError::Name);
    }
    files::create_directory(directory)?;
    let root_span = Span::new(now, plan.root_lifetime)?;
    let root_key = signer::new_key()?;
    let mut params = signer::ca_params(&plan.name, &plan.trust_domain, 1)?;
    signer::dated(&mut params, &root_span)?;
    let root = params.self_signed(&root_key)?.pem();
    let mut written = Written::default();
    written.add(directory.join(ROOT_KEY), &signer::key_pem(&root_key), Access::Owner)?;
    written.add(directory.join(ROOT_CERTIFICATE), &root, Access::All)?;
    written.add(directory.join(ROOTS), &root, Access::All)?;
    // The files are read back, so that the signing key is the one that later commands find.
    let made = intermediate(directory, plan.intermediate_lifetime, now)?;
    written.add(directory.join(INTERMEDIATE_KEY), &made.key, Access::Owner)?;
    written.add(directory.join(INTERMEDIATE_CERTIFICATE), &made.certificate, Access::All)?;
    written.keep();
    Ok(Made { root_until: root_span.not_after, intermediate_until: made.until })
}

/// Replaces the intermediate by one with a new key. Certificates from the old intermediate stay
/// valid, because their files include the old intermediate. Returns the expiry of the new one.
///
/// # Errors
/// When the root or its key is missing or not usable, or writing fails.
pub fn renew(directory: &Path, lifetime: Duration, now: SystemTime) -> Result<SystemTime, CaError> {
    if !files::exists(&directory.join(ROOT_CERTIFICATE))? {
        return Err(CaError::NoCa(directory.to_owned()));
    }
    let root_key = directory.join(ROOT_KEY);
    if !files::exists(&root_key)? {
        return Err(CaError::NoRootKey(root_key));
    }
    let made = intermediate(directory, lifetime, now)?;
    files::replace(&directory.join(INTERMEDIATE_KEY), &made.key, Access::Owner)?;
    files::replace(&directory.join(INTERMEDIATE_CERTIFICATE), &made.certificate, Access::All)?;
    Ok(made.until)
}

struct Intermediate {
    certificate: String,
    key: zeroize::Zeroizing<String>,
    until: SystemTime,
}

/// Creates an intermediate certificate that the root in `directory` has signed.
fn intermediate(
    directory: &Path,
    lifetime: Duration,
    now: SystemTime,
) -> Result<Intermediate, CaError> {
    let root = Signer::open(&directory.join(ROOT_CERTIFICATE), &directory.join(ROOT_KEY))?;
    let span = root.span(now, lifetime, "make a new CA with `ringway ca init`")?;
    let key = signer::new_key()?;
    let name = format!("{} intermediate", root.common_name);
    let params = signer::ca_params(&name, &root.trust_domain, 0)?;
    let certificate = root.sign(params, &span, &key)?;
    Ok(Intermediate { certificate, key: signer::key_pem(&key), until: span.not_after })
}

/// Files that are removed if not all of them can be written. An incomplete CA would make the next
/// attempt fail.
#[derive(Default)]
struct Written(Vec<std::path::PathBuf>);

impl Written {
    fn add(&mut self, path: std::path::PathBuf, text: &str, access: Access) -> Result<(), CaError> {
        files::write_new(&path, text, access)?;
        self.0.push(path);
        Ok(())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for path in &self.0 {
            fs::remove_file(path).ok();
        }
    }
}
