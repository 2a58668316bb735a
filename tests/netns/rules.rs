//! `intercept` changes the rules completely or not at all, can run twice, and never touches foreign
//! rules.

use super::namespace::{Namespace, ran};
use super::needs_namespaces;

/// Rules of another program, for nft and iptables.
const FOREIGN: &str = "set -e
    nft add table inet firewall
    nft add chain inet firewall input '{ type filter hook input priority 0; policy accept; }'
    nft add rule inet firewall input tcp dport 9 counter drop comment '\"ringway is not mine\"'
    nft add table ip ringway
    nft add chain ip ringway x
    iptables -t nat -A OUTPUT -p tcp --dport 81 -j REDIRECT --to-ports 82
    iptables -t nat -N RING
    iptables -t nat -A RING -j RETURN
    ip6tables -t mangle -A PREROUTING -p udp -j MARK --set-mark 7
    iptables-legacy -t nat -A OUTPUT -p tcp --dport 83 -j REDIRECT --to-ports 84
    ip rule add fwmark 9 lookup 99
    ip route add local 192.0.2.0/24 dev lo table 99";

const EVERYTHING: &str = "--tproxy --udp all --dns 15053 --user none --exclude-inbound-ports \
    22,80-90,85-95 --exclude-outbound-ports 22 --exclude-inbound-cidrs 10.0.0.0/8,10.1.0.0/16,::1 \
    --exclude-outbound-cidrs fd00::/8,192.0.2.7 --exclude-inbound-interfaces docker+,eth9 \
    --exclude-outbound-interfaces wg0 --exclude-uids 5,6 --exclude-gids 7";

#[test]
fn what_was_there_before_is_there_afterwards_to_the_byte() {
    needs_namespaces!("what_was_there_before_is_there_afterwards_to_the_byte");
    for backend in ["nft", "iptables"] {
        for (foreign, options) in [(false, "--user none"), (false, EVERYTHING), (true, EVERYTHING)]
        {
            let namespace = Namespace::new();
            if foreign {
                namespace.sh(FOREIGN);
            }
            let before = namespace.state();
            let up = format!("intercept up --backend {backend} {options}");
            namespace.must(&up);
            let once = namespace.state();
            assert_ne!(once, before, "{up}");
            namespace.must(&up);
            assert_eq!(namespace.state(), once, "twice is once: {up}");
            let removed = namespace.must("intercept down");
            assert!(removed.contains("removed"), "{removed}");
            assert_eq!(namespace.state(), before, "{up}");
            let nothing = namespace.must("intercept down");
            assert!(nothing.contains("nothing to remove"), "{nothing}");
            assert_eq!(namespace.state(), before, "{up}");
        }
    }
}

#[test]
fn another_plan_or_backend_replaces_the_one_before() {
    needs_namespaces!("another_plan_or_backend_replaces_the_one_before");
    let namespace = Namespace::new();
    let before = namespace.state();
    for up in [
        "intercept up --backend nft --tproxy --user none",
        "intercept up --backend nft --user none --outbound-port 9999",
        "intercept up --backend iptables --user none --udp 53",
        "intercept up --backend iptables --user none --no-outbound",
        "intercept up --user none",
    ] {
        namespace.must(up);
        let state = namespace.state();
        let fresh = Namespace::new();
        fresh.must(up);
        // The comment for iptables' table depends on whether the table existed before.
        let told = |state: String| state.replace(", in a table made for it", "");
        assert_eq!(told(state), told(fresh.state()), "{up}");
    }
    namespace.must("intercept down");
    assert_eq!(namespace.state(), before);
}

#[test]
fn what_is_not_ours_is_never_touched_and_said_aloud() {
    needs_namespaces!("what_is_not_ours_is_never_touched_and_said_aloud");
    for (theirs, said) in [
        (
            "nft 'table inet ringway { chain inbound { tcp dport 80 accept; }; }'",
            "tcp dport 80 accept",
        ),
        ("nft 'table inet ringway { chain mine { }; }'", "chain mine"),
        (
            "iptables -t nat -N RINGWAY_OUTBOUND; iptables -t nat -A RINGWAY_OUTBOUND -j ACCEPT",
            "nat: RINGWAY_OUTBOUND -j ACCEPT",
        ),
        ("ip rule add fwmark 1337 lookup 7 pref 20", "fwmark 0x539 lookup 7"),
        ("ip -6 route add local fd00::/8 dev lo table 133", "local fd00::/8 dev lo"),
    ] {
        let namespace = Namespace::new();
        namespace.sh(theirs);
        let before = namespace.state();
        let (fine, message) = namespace.ringway("intercept up --tproxy --user none");
        assert!(!fine && message.contains(said), "{theirs}: {message}");
        assert!(message.contains("has rules of another program"), "{message}");
        assert_eq!(namespace.state(), before, "{theirs}");
    }
}

#[test]
fn a_step_that_fails_leaves_nothing_behind() {
    needs_namespaces!("a_step_that_fails_leaves_nothing_behind");
    // The kernel cannot create a chain of this name for IPv6, because another program has a base
    // chain of nft with this name. The rules of IPv4 and the routes are installed first.
    let namespace = Namespace::new();
    namespace.sh("nft 'table ip6 nat { set RINGWAY_OUTBOUND { type ipv6_addr; }; \
        chain RINGWAY_OUTBOUND { type filter hook input priority 5; }; }'");
    let before = namespace.sh("nft list ruleset; ip rule");
    let (fine, message) = namespace.ringway("intercept up --backend iptables --udp 53 --user none");
    assert!(!fine, "{message}");
    assert_eq!(namespace.sh("nft list ruleset; ip rule"), before, "{message}");
}

#[test]
fn only_root_may_and_a_missing_program_is_named() {
    needs_namespaces!("only_root_may_and_a_missing_program_is_named");
    let namespace = Namespace::new();
    let ringway = env!("CARGO_BIN_EXE_ringway");
    // Use a copy, because other users may not read the builder's home directory.
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("ringway");
    // Another process copies: a test that forks at the same time would hold our descriptor open for
    // writing, and such a file cannot run ("text file busy").
    assert!(std::process::Command::new("cp").arg(ringway).arg(&copy).status().unwrap().success());
    let open = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(place.path());
    open(&copy);
    for backend in ["nft", "iptables"] {
        let line = format!(
            "setpriv --reuid 65534 --clear-groups {} intercept up --backend {backend}",
            copy.display()
        );
        let (fine, said) = ran(namespace.try_sh(&line));
        assert!(!fine && said.contains("run it as root"), "{said}");
    }
    // A root file system that contains only the libraries that ringway needs.
    let bare = "mount -t tmpfs none /usr/sbin && mount --bind /usr/sbin /usr/local/sbin";
    for (options, words) in [
        ("", "neither nft nor iptables-restore is not installed"),
        ("--backend nft", "nft is not installed\n  install it: apt-get install nftables"),
        ("--backend iptables", "iptables-save is not installed"),
    ] {
        let line = format!("{bare} && exec {ringway} intercept up {options}");
        let (fine, said) = ran(namespace.try_sh(&format!("unshare --mount sh -c '{line}'")));
        assert!(!fine && said.contains(words), "{said}");
    }
}

#[test]
fn a_namespace_is_named_or_that_of_a_process() {
    needs_namespaces!("a_namespace_is_named_or_that_of_a_process");
    let (here, there) = (Namespace::new(), Namespace::new());
    let (before, there_before) = (here.state(), there.state());
    here.must(&format!("intercept up --netns {} --user none", there.name));
    assert_eq!(here.state(), before);
    assert!(there.state().contains("ringway: caught"));
    let path = format!("/run/netns/{}", there.name);
    assert!(here.must(&format!("intercept show --installed --netns {path}")).contains("redirect"));
    let mut process = std::process::Command::new("ip")
        .args(["netns", "exec", &there.name, "sleep", "600"])
        .spawn()
        .unwrap();
    let pid = process.id();
    // Until `ip` has entered the namespace, the process is still in the namespace of the test.
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    crate::support::eventually("the process to be there", || {
        let its = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
        (its != own).then_some(())
    });
    here.must(&format!("intercept down --netns {pid}"));
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(there.state(), there_before);
    let (fine, said) = here.ringway("intercept up --netns no-such");
    assert!(!fine && said.contains("no network namespace no-such"), "{said}");
}

#[test]
fn what_is_worth_knowing_is_said_once_it_is_installed() {
    needs_namespaces!("what_is_worth_knowing_is_said_once_it_is_installed");
    let namespace = Namespace::new();
    let silent = super::talk::server(&namespace, "outbound", 15001);
    for (options, words, count) in [
        ("--user none", "note: no proxy listens on port 15006 yet", 2),
        (
            "--user none --no-inbound",
            "note: the rules recognise the proxy only by its mark 1338",
            1,
        ),
        ("--user 7 --no-inbound", "installed: outbound TCP to 15001", 0),
        (
            "--user 7 --no-inbound --fail-open",
            "note: redirecting rules stay when the proxy is killed",
            1,
        ),
    ] {
        let said = namespace.must(&format!("intercept up {options}"));
        assert!(said.contains(words), "{options}: {said}");
        assert_eq!(said.matches("note: ").count(), count, "{options}: {said}");
    }
    drop(silent);
    for (options, words) in [
        ("--mark 0", "all unmarked sockets have it"),
        ("--mark 1337", "TPROXY uses it"),
        ("--inbound-port 15001", "cannot serve both directions"),
        ("--user no-such-user", "there is no user \"no-such-user\" on this host"),
    ] {
        let (fine, said) = namespace.ringway(&format!("intercept up {options}"));
        assert!(!fine && said.contains(words), "{options}: {said}");
    }
}
