//! `intercept up` warns an operator if the rules would capture the port of his SSH login.

use super::namespace::Namespace;
use super::needs_namespaces;

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");

/// The environment of a login by SSH.
const LOGIN: &str = "SSH_CONNECTION='198.51.100.7 51000 192.0.2.1 2222'";

#[test]
fn up_warns_when_the_port_of_the_login_would_be_captured() {
    needs_namespaces!("up_warns_when_the_port_of_the_login_would_be_captured");
    let namespace = Namespace::new();
    let up = |before: &str, options: &str| {
        let line = format!("{before} {RINGWAY} intercept up --user none {options} 2>&1");
        namespace.sh(&line)
    };
    let warning = "warning: you are logged in from 198.51.100.7 through port 2222";
    let said = up(LOGIN, "");
    assert!(said.contains(warning) && said.contains("installed"), "{said}");
    // As by sudo, which removes the variable: the parent still has it.
    let sudo = format!("{LOGIN} sh -c 'env -u SSH_CONNECTION \"$@\"; exit $?' sudo");
    let said = up(&sudo, "");
    assert!(said.contains(warning), "{said}");
    for options in ["--exclude-inbound-ports 2222", "--no-inbound"] {
        let said = up(LOGIN, options);
        assert!(!said.contains("warning") && said.contains("installed"), "{said}");
    }
}
