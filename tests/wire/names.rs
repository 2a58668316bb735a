//! Services with DNS names: the system's servers, and the effects of their answers.

use std::net::UdpSocket;

use crate::support::http::Client;
use crate::support::names::{NameServer, ResolvConf, Say, question};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually, free_port, skipped};

/// A proxy whose system uses the servers in `resolv_conf`, in front of the service at `name`.
fn proxy(resolv_conf: &ResolvConf, port: u16, name: &str, more: &str) -> Proxy {
    let script = resolv_conf.script();
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    Proxy::start_under(&wrapper, "workers: 1", &config(port, name, more))
}

fn config(port: u16, name: &str, more: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{dns: \"{name}\"}}}}\n{more}\n"
    )
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped("only root can give the proxy a DNS server of its own");
    }
    root
}

fn status(port: u16) -> u16 {
    Client::connect(port).get("a", "/").status
}

#[track_caller]
fn eventually_status(port: u16, wanted: u16) {
    eventually(&format!("status {wanted}"), || (status(port) == wanted).then_some(()));
}

#[test]
fn a_service_is_found_by_name_and_followed_as_its_addresses_change() {
    if !is_root() {
        return;
    }
    let origin = Origin::saying("one");
    let names = NameServer::start(Say::address("127.0.0.1"));
    let (port, file) = (free_port(), ResolvConf::new(&[&names]));
    let proxy = proxy(&file, port, &format!("app.ringway.test:{}", origin.port), "");
    let version = proxy.metric("ringway_config_version");
    assert_eq!(status(port), 200);
    // Nothing listens at the new address. So 503 shows that the proxy uses it.
    names.say(Say::address("127.0.0.9"));
    eventually_status(port, 503);
    names.say(Say::address("127.0.0.1"));
    eventually_status(port, 200);
    assert_eq!(proxy.metric("ringway_config_version"), version, "nothing is compiled for it");
}

#[test]
fn a_name_that_is_gone_has_no_addresses_and_a_failed_lookup_keeps_them() {
    if !is_root() {
        return;
    }
    let origin = Origin::saying("one");
    let names = NameServer::start(Say::address("127.0.0.1"));
    let (port, file) = (free_port(), ResolvConf::new(&[&names]));
    let name = format!("app.ringway.test:{}", origin.port);
    let proxy = proxy(&file, port, &name, "dns: {gone_after: 1h}");
    let lookups =
        |result: &str| proxy.metric(&format!("ringway_dns_lookups_total{{result=\"{result}\"}}"));
    for (say, result) in [(Say::Failure, "failure"), (Say::NoSuchName, "none")] {
        let before = lookups(result);
        names.say(say);
        eventually(result, || (lookups(result) > before).then_some(()));
        assert_eq!(status(port), 200, "{result}: the addresses stay");
    }
    // From now on the proxy drops the addresses at once when the name is gone.
    proxy.reload(&config(port, &name, "dns: {gone_after: 1ms}"));
    eventually_status(port, 503);
    names.say(Say::Failure);
    let (before, asked) = (lookups("failure"), names.asked());
    eventually("a failure", || (lookups("failure") > before).then_some(()));
    assert!(names.asked() - asked >= 2, "the server is asked again before that is said");
    names.say(Say::address("127.0.0.1"));
    eventually_status(port, 200);
}

#[test]
fn a_new_resolv_conf_is_read_and_an_empty_one_is_waited_for() {
    if !is_root() {
        return;
    }
    let origin = Origin::saying("one");
    let long = |ip: &str| Say::Addresses(vec![ip.parse().unwrap()], 300);
    let one = NameServer::start(long("127.0.0.1"));
    let other = NameServer::start(long("127.0.0.9"));
    let (port, file) = (free_port(), ResolvConf::new(&[]));
    let _proxy = proxy(&file, port, &format!("app.ringway.test:{}", origin.port), "");
    assert_eq!(status(port), 503, "no server, no address");
    file.name(&[&one]);
    eventually_status(port, 200);
    // The old answers are valid for minutes, but the proxy asks the new server at once.
    file.name(&[&other]);
    eventually_status(port, 503);
    file.name(&[]);
    file.name(&[&one]);
    eventually_status(port, 200);
}

#[test]
fn a_server_that_cannot_answer_makes_room_for_the_next_one() {
    if !is_root() {
        return;
    }
    let origin = Origin::saying("one");
    for say in [Say::Failure, Say::Silence] {
        let (first, second) = (NameServer::start(say), NameServer::start(Say::Failure));
        let file = ResolvConf::new(&[&first, &second]);
        second.say(Say::address("127.0.0.1"));
        let (port, dns) = (free_port(), free_port());
        let mesh = format!("mesh: {{dns: {{bind: 127.0.0.1:{dns}}}}}");
        let proxy = proxy(&file, port, &format!("app.ringway.test:{}", origin.port), &mesh);
        eventually_status(port, 200);
        // The queries of the workload.
        let workload = UdpSocket::bind("127.0.0.1:0").unwrap();
        workload.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = || {
            workload.send_to(&question("known.example"), ("127.0.0.1", dns)).unwrap();
            let mut reply = [0; 512];
            let n = workload.recv(&mut reply).unwrap();
            (reply[3] & 15, reply[..n].ends_with(&[127, 0, 0, 1]))
        };
        assert_eq!(ask(), (0, true), "the second server has answered");
        // When no server answers, the workload gets SERVFAIL.
        second.say(Say::Failure);
        assert_eq!(ask(), (2, false));
        let counted = |result: &str| {
            proxy.metric(&format!("ringway_dns_queries_total{{result=\"{result}\"}}"))
        };
        assert_eq!((counted("elsewhere"), counted("failed")), (1.0, 1.0));
    }
}
