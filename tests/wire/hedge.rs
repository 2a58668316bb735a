//! The proxy connects to another endpoint when the first one does not accept in time.

use std::net::TcpListener;

use crate::support::free_port;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;

/// A listener with a full queue of connections, so that the kernel drops each new SYN. The streams
/// keep the queue full.
pub fn deaf() -> (TcpListener, Vec<std::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let limit = std::time::Duration::from_millis(200);
    let connect = || std::net::TcpStream::connect_timeout(&address, limit).ok();
    let streams = std::iter::from_fn(connect).collect();
    (listener, streams)
}

#[test]
fn an_endpoint_that_does_not_accept_costs_no_request_its_answer() {
    let (deaf, _streams) = deaf();
    let good = Origin::saying("good");
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services:\n  app:\n    balance: round-robin\n    connect_timeout: 1h\n\
             \x20   connect_hedge: 50ms\n    max_idle_connections: 0\n\
             \x20   endpoints: [\"{}\", \"{}\"]\n",
            deaf.local_addr().unwrap(),
            good.address()
        ),
        1,
    );
    for _ in 0..6 {
        let answer = Client::connect(port).get("a", "/");
        assert_eq!((answer.status, answer.text()), (200, "good"), "{}", proxy.log());
    }
    assert_eq!(good.requests().len(), 6, "no request is sent twice");
}
