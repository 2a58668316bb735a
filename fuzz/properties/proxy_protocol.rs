//! PROXY headers: no panic, all lengths are inside the input, and a parsed header can be encoded
//! again.

use ringway::proxy_protocol::SendProxyProtocol;
use ringway::proxy_protocol::{self, Progress};

pub fn holds(bytes: &[u8]) {
    let parsed = proxy_protocol::parse(bytes);
    let Ok(Progress::Complete { len, source, destination, .. }) = parsed else { return };
    assert!(len <= bytes.len());
    for form in [SendProxyProtocol::V1, SendProxyProtocol::V2] {
        let mut out = Vec::new();
        proxy_protocol::encode(&mut out, form, source, destination);
        let again = proxy_protocol::parse(&out);
        let Ok(Progress::Complete { len, source: again, .. }) = again else {
            panic!("{form:?}: what we sent is not understood");
        };
        assert_eq!(len, out.len());
        let ip = |a: Option<std::net::SocketAddr>| a.map(|a| (a.ip().to_canonical(), a.port()));
        assert_eq!(ip(again), ip(source));
    }
}
