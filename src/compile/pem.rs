//! Recognises the content of a certificate or key file, for the error message if it is the wrong
//! file.

/// The kind of content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pem {
    /// A certificate.
    Certificate,
    /// A private key.
    Key,
    /// A private key that a passphrase protects.
    EncryptedKey,
    /// A public key.
    PublicKey,
    /// A certificate signing request (CSR).
    Request,
    /// No bytes.
    Empty,
    /// Bytes that are not text.
    Binary,
    /// Anything else.
    Unknown,
}

impl Pem {
    /// Recognises the content of a file.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let has = |text: &str| memchr::memmem::find(bytes, text.as_bytes()).is_some();
        match () {
            () if bytes.is_empty() => Self::Empty,
            () if has("ENCRYPTED") => Self::EncryptedKey,
            () if has("BEGIN CERTIFICATE REQUEST") => Self::Request,
            () if has("BEGIN CERTIFICATE") => Self::Certificate,
            () if has("PRIVATE KEY-----") => Self::Key,
            () if has("PUBLIC KEY-----") => Self::PublicKey,
            () if std::str::from_utf8(bytes).is_err() => Self::Binary,
            () => Self::Unknown,
        }
    }

    /// The error message for a file that should contain `wanted`.
    pub(super) fn instead(self, wanted: &str) -> String {
        let found = match self {
            Self::Certificate => "a certificate",
            Self::Key => "a private key",
            Self::EncryptedKey => return "a passphrase protects this private key".to_owned(),
            Self::PublicKey => "a public key",
            Self::Request => "a request for a certificate (CSR)",
            Self::Empty => return "this file is empty".to_owned(),
            Self::Binary => return format!("this file is not PEM text with a {wanted}"),
            Self::Unknown => return format!("there is no {wanted} in this file"),
        };
        format!("this file has {found}, and no {wanted}")
    }

    /// The advice for the operator, for a file with this content.
    pub(super) fn help(self) -> &'static str {
        match self {
            Self::EncryptedKey => {
                "write it without one: openssl pkey -in FILE -out NEW; chmod 600 NEW"
            }
            Self::Request => "send it to a CA; `ringway ca issue` makes certificates for a mesh",
            Self::PublicKey => "the private key is in the file from which it was made",
            Self::Empty => "write the file again, as PEM text",
            Self::Binary => "DER becomes PEM by: openssl x509 -inform DER -in FILE -out NEW",
            Self::Certificate => "name the file that has PRIVATE KEY in a line with -----BEGIN",
            Self::Key => "name the file that has CERTIFICATE in a line with -----BEGIN",
            Self::Unknown => {
                "a PEM file begins with -----BEGIN, and the words after it say what it is"
            }
        }
    }
}
