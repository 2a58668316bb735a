//! `ringway ca`: OpenSSL accepts the certificates that it issues.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::peers::{Server, program};

/// A directory in which the tests run the commands, like a user.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A directory with a CA in `ca`.
    fn with_ca() -> Self {
        let place = Self::new();
        place.fine("init");
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.0.path().join(name)).unwrap().permissions().mode() & 0o777
    }

    /// The exit code, the output and the error output of `ringway ca` with these arguments.
    fn ca(&self, words: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.arg("ca").args(words.split_whitespace()).current_dir(self.0.path());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// The standard output and error output of a command that succeeds.
    #[track_caller]
    fn fine(&self, words: &str) -> (String, String) {
        let (code, said, errors) = self.ca(words);
        assert_eq!(code, 0, "{words}: {said}{errors}");
        assert!(
            !said.contains("PRIVATE") && !errors.contains("PRIVATE"),
            "{words}: {said}{errors}"
        );
        (said, errors)
    }

    /// The error output of a command that fails with this exit code.
    #[track_caller]
    fn refused(&self, words: &str, code: i32) -> String {
        let (found, said, errors) = self.ca(words);
        assert_eq!(found, code, "{words}: {said}{errors}");
        assert_eq!(said, "", "{words}");
        errors
    }

    fn openssl(&self, words: &str) -> Output {
        let mut command = program("openssl");
        command.args(words.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
        command.output().unwrap_or_else(|error| panic!("openssl: {error}; run ./test"))
    }

    /// The output of `openssl`, which must succeed.
    #[track_caller]
    fn shown(&self, words: &str) -> String {
        let output = self.openssl(words);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "openssl {words}: {text}");
        text
    }

    /// The names and contents of all files.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.0.path().join("ca")).unwrap() {
            let path = entry.unwrap().path();
            found.push((path.display().to_string(), fs::read(path).unwrap()));
        }
        found.sort();
        found
    }
}

/// The line of `openssl x509 -text` after the one that names an extension.
#[track_caller]
fn extension<'a>(text: &'a str, name: &str) -> &'a str {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with(name));
    lines.nth(1).unwrap_or_else(|| panic!("no {name}: {text}"))
}

#[test]
fn openssl_accepts_the_chain_and_sees_the_identity() {
    let place = Place::with_ca();
    let names = "--dns shop.internal --dns *.shop.internal --ip 127.0.0.1 --ip ::1";
    let (said, warned) = place.fine(&format!("issue spiffe://cluster.local/ns/a/sa/shop {names}"));
    assert_eq!(warned, "");
    // Users will run the command that the output advises.
    let advised = said.lines().find_map(|line| line.trim().strip_prefix("openssl ")).expect(&said);
    assert_eq!(place.shown(advised), "shop.pem: OK\n");
    for purpose in ["sslserver", "sslclient"] {
        let strict = "-x509_strict -CAfile ca/roots.pem -untrusted ca/intermediate.pem";
        let verified = place.shown(&format!("verify {strict} -purpose {purpose} shop.pem"));
        assert_eq!(verified, "shop.pem: OK\n");
    }
    let text = place.shown("x509 -in shop.pem -noout -text");
    let san = extension(&text, "X509v3 Subject Alternative Name");
    assert_eq!(
        san,
        "URI:spiffe://cluster.local/ns/a/sa/shop, DNS:shop.internal, DNS:*.shop.internal, \
         IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1"
    );
    let usages = extension(&text, "X509v3 Extended Key Usage");
    assert_eq!(usages, "TLS Web Server Authentication, TLS Web Client Authentication");
    assert_eq!(extension(&text, "X509v3 Key Usage: critical"), "Digital Signature");
    assert_eq!(extension(&text, "X509v3 Basic Constraints: critical"), "CA:FALSE");
    assert!(text.contains("NIST CURVE: P-256"), "{text}");
    let public = place.shown("pkey -in shop.key -pubout");
    assert_eq!(public, place.shown("x509 -in shop.pem -noout -pubkey"));
    let key = fs::read_to_string(place.path("shop.key")).unwrap();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"), "PKCS#8");
    // The certificate is valid for a day.
    place.shown("x509 -in shop.pem -noout -checkend 86000");
    assert!(!place.openssl("x509 -in shop.pem -noout -checkend 86500").status.success());
}

#[test]
fn openssl_sees_a_spiffe_ca_of_which_only_the_root_is_trusted() {
    let place = Place::new();
    place.fine("init --dir deep/ca --trust-domain prod.example.com --name Prod --lifetime 2y");
    for (name, constraints) in
        [("root", "CA:TRUE, pathlen:1"), ("intermediate", "CA:TRUE, pathlen:0")]
    {
        let text = place.shown(&format!("x509 -in deep/ca/{name}.pem -noout -text"));
        let san = extension(&text, "X509v3 Subject Alternative Name");
        assert_eq!(san, "URI:spiffe://prod.example.com");
        assert_eq!(extension(&text, "X509v3 Key Usage: critical"), "Certificate Sign, CRL Sign");
        assert_eq!(extension(&text, "X509v3 Basic Constraints: critical"), constraints);
        assert!(text.contains("Subject: CN = Prod"), "{text}");
        assert_eq!(place.mode(&format!("deep/ca/{name}.key")), 0o600);
    }
    assert_eq!(place.mode("deep/ca"), 0o700);
    let verified = "verify -x509_strict -CAfile deep/ca/roots.pem deep/ca/intermediate.pem";
    assert_eq!(place.shown(verified), "deep/ca/intermediate.pem: OK\n");
    let roots = fs::read_to_string(place.path("deep/ca/roots.pem")).unwrap();
    assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 1);
    place.shown(&format!("x509 -in deep/ca/root.pem -noout -checkend {}", 729 * 86_400));
    assert!(
        !place.openssl("verify -CAfile deep/ca/intermediate.pem deep/ca/root.pem").status.success()
    );
}

#[test]
fn both_sides_of_mtls_accept_each_other_and_nobody_from_another_ca() {
    let place = Place::with_ca();
    place.fine("issue spiffe://cluster.local/ns/a/sa/shop --dns localhost");
    place.fine("issue spiffe://cluster.local/ns/a/sa/cart");
    place.fine("init --dir other");
    place.fine("issue spiffe://cluster.local/ns/a/sa/thief --dir other");
    let server = Server::openssl(place.0.path(), "shop", "ca/roots.pem");
    let ask = |name: &str| {
        let mut command = program("openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", "-CAfile", "ca/roots.pem"]);
        command.args(["-connect", &format!("127.0.0.1:{}", server.port)]);
        command.args(["-verify_hostname", "localhost", "-key", &format!("{name}.key")]);
        let certificate = format!("{name}.pem");
        command.args(["-cert", &certificate, "-cert_chain", &certificate]);
        command.current_dir(place.0.path());
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            piped.spawn().unwrap_or_else(|error| panic!("openssl: {error}; run ./test"));
        // The server answers a line with its letters in reverse. Then the client ends.
        child.stdin.take().unwrap().write_all(b"olleh\nCLOSE\n").ok();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).into_owned(), errors)
    };
    let (answer, errors) = ask("cart");
    assert!(answer.contains("hello"), "{answer} {errors} {}", server.log());
    let (answer, errors) = ask("thief");
    assert!(!answer.contains("hello") && errors.contains("alert"), "{answer} {errors}");
}

#[test]
fn a_second_init_refuses_and_changes_nothing() {
    let place = Place::with_ca();
    let before = place.files();
    let said = place.refused("init", 1);
    assert!(said.contains("ca/root.key is already there"), "{said}");
    assert!(said.contains("choose another --dir"), "{said}");
    let said = place.refused("issue spiffe://cluster.local/intermediate --out ca", 1);
    assert!(said.contains("ca/intermediate.pem belongs to a CA"), "{said}");
    assert_eq!(place.files(), before);
}

#[test]
fn what_cannot_be_issued_is_refused_and_says_what_to_do() {
    let place = Place::new();
    let said = place.refused("issue spiffe://cluster.local/a", 1);
    let advice = "there is no CA in ca: make one with `ringway ca init --dir ca`";
    assert!(said.contains(advice), "{said}");
    place.fine("init --dir ca");
    for (words, code, advice) in [
        ("spiffe://other.domain/ns/a/sa/b", 1, "write spiffe://cluster.local/ns/a/sa/b"),
        ("spiffe://cluster.local", 1, "names no workload"),
        ("spiffe://cluster.local/a --dns a..b", 1, "is no DNS name"),
        ("spiffe://cluster.local/a --out not/there", 1, "cannot write not/there.key"),
        ("http://cluster.local/a", 2, "must begin with spiffe://"),
        ("spiffe://cluster.local/a/", 2, "ends with a slash"),
        ("spiffe://cluster.local/a/../b", 2, "cannot be segments"),
        ("spiffe://Cluster.local/a", 2, "'C' cannot stand in a trust domain"),
        ("spiffe://cluster.local:443/a", 2, "':' cannot stand in a trust domain"),
        ("spiffe://cluster.local/a?b", 2, "'?' cannot stand in the path"),
        ("spiffe://cluster.local/a --lifetime 0s", 2, "1s at least"),
        ("spiffe://cluster.local/a --lifetime soon", 2, "--lifetime"),
        ("spiffe://cluster.local/a --ip 300.0.0.1", 2, "--ip"),
        ("", 2, "<ID>"),
    ] {
        let said = place.refused(&format!("issue {words}"), code);
        assert!(said.contains(advice), "{words}: {said}");
    }
    assert_eq!(place.refused("init --dir x --trust-domain a/b", 2).matches("'/'").count(), 1);
    assert!(!Path::new(&place.path("x")).exists());
    let left = fs::read_dir(place.0.path()).unwrap().count();
    assert_eq!(left, 1, "nothing was written");
}

#[test]
fn a_ca_of_another_user_is_not_taken_for_a_missing_one() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skipped("only root can act as another user");
    }
    let place = Place::new();
    place.fine("init --dir ca");
    let config = "listeners: {in: {bind: 127.0.0.1:1, tls: mesh}}\n\
                  mesh: {identity: {ca: ca, id: spiffe://cluster.local/ns/a/sa/b}}\n\
                  routes: {\"*\": [{respond: {status: 204}}]}\n";
    fs::write(place.path("ringway.yaml"), config).unwrap();
    let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(place.0.path(), open).unwrap();
    for words in [&["check", "-c", "ringway.yaml"][..], &["ca", "renew", "--dir", "ca"]] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--clear-groups", env!("CARGO_BIN_EXE_ringway")]);
        let output = command.args(words).current_dir(place.0.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("permission denied: this user may not look into"), "{said}");
        assert!(said.contains("ringway.service.d/ca.conf"), "{said}");
        assert!(!said.contains("there is no CA"), "{said}");
    }
}

#[test]
fn an_intermediate_key_that_everyone_can_read_is_a_warning_of_check() {
    let place = Place::with_ca();
    let config = "listeners: {in: {bind: 127.0.0.1:1, tls: mesh}}\n\
                  mesh: {identity: {ca: ca, id: spiffe://cluster.local/ns/a/sa/b}}\n\
                  routes: {\"*\": [{respond: {status: 204}}]}\n";
    fs::write(place.path("ringway.yaml"), config).unwrap();
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        let output =
            command.args(["check", "-c"]).arg(place.path("ringway.yaml")).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let said = check();
    assert!(!said.contains("warning"), "{said}");
    fs::set_permissions(place.path("ca/intermediate.key"), fs::Permissions::from_mode(0o644))
        .unwrap();
    let said = check();
    for words in [
        "ringway.yaml:2:23: warning: every user of this host can read the intermediate key",
        "help: chmod o-r /",
        "/ca/intermediate.key\n",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_certificate_ends_with_the_intermediate_until_that_is_renewed() {
    let place = Place::new();
    place.fine("init --intermediate-lifetime 1h");
    let (_, warned) = place.fine("issue spiffe://cluster.local/ns/a/sa/b --out old --lifetime 1d");
    assert!(warned.contains("ends with the intermediate"), "{warned}");
    assert!(warned.contains("`ringway ca renew`"), "{warned}");
    assert!(!place.openssl("x509 -in old.pem -noout -checkend 3700").status.success());
    place.fine("renew --lifetime 30d");
    let (_, warned) = place.fine("issue spiffe://cluster.local/ns/a/sa/b --out new --lifetime 1d");
    assert_eq!(warned, "");
    place.shown("x509 -in new.pem -noout -checkend 86000");
    // Certificates of the old intermediate stay valid, because their files contain it.
    for name in ["old", "new"] {
        place.shown(&format!("verify -CAfile ca/roots.pem -untrusted {name}.pem {name}.pem"));
    }
    assert_eq!(place.mode("ca/intermediate.key"), 0o600);
    // Without the root's key, `issue` still works.
    fs::rename(place.path("ca/root.key"), place.path("offline")).unwrap();
    place.fine("issue spiffe://cluster.local/ns/a/sa/b");
    let said = place.refused("renew", 1);
    assert!(said.contains("ca/root.key is missing"), "{said}");
}

#[test]
fn issuing_again_replaces_both_files() {
    let place = Place::with_ca();
    let pair = || ["b.pem", "b.key"].map(|name| fs::read_to_string(place.path(name)).unwrap());
    place.fine("issue spiffe://cluster.local/ns/a/sa/b");
    let before = pair();
    // A key file that others can read does not stay readable for them.
    fs::set_permissions(place.path("b.key"), fs::Permissions::from_mode(0o644)).unwrap();
    place.fine("issue spiffe://cluster.local/ns/a/sa/b");
    let after = pair();
    assert!(before[0] != after[0] && before[1] != after[1]);
    assert_eq!(place.mode("b.key"), 0o600);
    let left = fs::read_dir(place.0.path()).unwrap().count();
    assert_eq!(left, 3, "the CA and the pair: no temporary file is left");
}
