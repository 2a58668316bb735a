//! Traffic of the proxy itself: only its mark distinguishes it from the traffic of the workload.

use super::rules;
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::names::{NameServer, Say};
use crate::support::netns::{App, Wire, can_have_hosts};
use crate::support::proxy::Proxy;

/// A key set. No token is signed with its keys.
const KEYS: &str = r#"{"keys":[{"kty":"oct","kid":"a","alg":"HS256","k":"AyM1SysPpbyDfgZld3umj1"},
{"kty":"EC","crv":"P-256","kid":"b","alg":"ES256","use":"sig",
"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

#[test]
fn lookups_fetches_and_checks_of_the_proxy_are_not_captured() {
    if !can_have_hosts() {
        return;
    }
    for backend in rules::BACKENDS {
        let wire = Wire::new(2);
        let [side, other] = &wire.hosts[..] else { panic!() };
        let socket = other.within(|| std::net::UdpSocket::bind("10.99.0.2:53").unwrap());
        let names = NameServer::over(socket, Say::address("10.99.0.2"));
        side.resolve_by(&names.ip);
        let _stock = App::saying(other.listen("10.99.0.2:8080"), "stock");
        let _keys = App::saying(other.listen("10.99.0.2:8000"), KEYS);
        // The service has the same name as in DNS. For the workload, this name has the virtual
        // address.
        let config = "mesh:\n\
             \x20 outbound: {bind: \"0.0.0.0:15001\", unknown: deny}\n\
             \x20 dns: {bind: \"127.0.0.1:15053\"}\n\
             services:\n\
             \x20 stock: {addresses: \"10.9.0.2:80\", dns: \"stock:8080\", \
             health_check: {http: /, interval: 1s}}\n\
             jwt:\n\
             \x20 id: {issuer: \"https://id.test\", audiences: [shop], \
             jwks: {url: \"http://keys.test:8000/\", refresh: 1s}}\n\
             routes: {nobody.test: [{to: stock, jwt: id}]}\n";
        let proxy = Proxy::start_in(&side.name, config);
        rules::up(side, backend, &proxy);
        let dig = |name: &str| side.run(&["dig", "+short", "+tries=1", "@10.99.0.2", name]);
        assert_eq!(dig("stock").trim(), "10.9.0.2", "the workload is captured");
        // Repeat all of it with the rules installed.
        let lookups = || proxy.metric("ringway_dns_lookups_total{result=\"success\"}");
        let fetches = || proxy.metric("ringway_jwks_fetches_total{result=\"success\"}");
        let checks = || proxy.metric("ringway_health_checks_total{service=\"stock\"");
        let before = (lookups(), fetches(), checks());
        eventually("a lookup, a fetch and a check", || {
            let now = (lookups(), fetches(), checks());
            (now.0 > before.0 + 1.0 && now.1 > before.1 && now.2 > before.2).then_some(())
        });
        assert_eq!(proxy.metric("ringway_jwt_keys"), 1.0, "{}", proxy.log());
        let services = proxy.admin("/services");
        assert!(services.text().contains("10.99.0.2:8080"), "{}", services.text());
        let answer = Client::over(side.connect("10.9.0.2:80")).get("stock", "/");
        assert_eq!((answer.status, answer.text()), (200, "stock"), "{backend}");
        let unknown = proxy.metric("ringway_capture_unknown_destinations_total");
        assert_eq!(unknown, 0.0, "{backend}: nothing of the proxy came back to it");
    }
}
