#!/usr/bin/env bash
# The Rust crate h2 silently cuts trailers that are larger than the receiver's limit.
#
# Version: h2 0.4.20. A client sets max_header_list_size(1000). A server answers with trailers of
# 21 fields, about 2 900 bytes in the measure of HTTP/2 (RFC 9113 6.5.2: name, value and 32 for
# each field); `grpc-status` is the last one.
#
# Result: the client gets only the first seven fields. There is no error, no reset and no flag that
# a caller can read, so a gRPC call ends without its status. A response head of the same size is an
# error. Output:
#   trailers: 7 of 21 fields, grpc-status missing
#   head: refused (unspecific protocol error detected)
#
# Workaround: set the limit of the crate far above the real limit, and refuse larger trailers in
# the caller.
#
# Needs cargo and a package registry. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
h2 = "=0.4.20"
http = "=1.5.0"
bytes = "=1.12.2"
tokio = { version = "=1.54.1", features = ["rt", "io-util", "macros"] }
TOML
cat > src/main.rs <<'RUST'
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

const LIMIT: u32 = 1000;

fn many() -> HeaderMap {
    let mut fields = HeaderMap::new();
    for at in 0..20 {
        let name = HeaderName::from_bytes(format!("x-detail-{at}").as_bytes()).unwrap();
        fields.insert(name, HeaderValue::from_str(&"v".repeat(100)).unwrap());
    }
    fields.insert("grpc-status", HeaderValue::from_static("0"));
    fields
}

/// Answers one request with large trailers, and one with a large head.
async fn serve(io: tokio::io::DuplexStream) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let mut response = Response::new(());
        if request.uri().path() == "/head" {
            *response.headers_mut() = many();
            respond.send_response(response, true).unwrap();
        } else {
            let mut body = respond.send_response(response, false).unwrap();
            body.send_data(Bytes::from_static(b"message"), false).unwrap();
            body.send_trailers(many()).unwrap();
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (near, far) = tokio::io::duplex(1 << 20);
    tokio::spawn(serve(far));
    let mut builder = h2::client::Builder::new();
    let (mut client, connection) =
        builder.max_header_list_size(LIMIT).handshake::<_, Bytes>(near).await.unwrap();
    tokio::spawn(connection);
    let get = |path| Request::get(format!("http://a{path}")).body(()).unwrap();

    let (response, _) = client.send_request(get("/trailers"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    match body.trailers().await {
        Ok(Some(fields)) => println!(
            "trailers: {} of 21 fields, grpc-status {}",
            fields.len(),
            if fields.contains_key("grpc-status") { "there" } else { "missing" },
        ),
        other => println!("trailers: {other:?}"),
    }
    let (response, _) = client.send_request(get("/head"), true).unwrap();
    match response.await {
        Ok(response) => println!("head: {} of 21 fields", response.headers().len()),
        Err(error) => println!("head: refused ({})", error.reason().unwrap()),
    }
}
RUST
seen=$(cargo run --quiet 2> build.log) || { cat build.log; exit 1; }
expected='trailers: 7 of 21 fields, grpc-status missing
head: refused (unspecific protocol error detected)'
echo "$seen"
[ "$seen" = "$expected" ] || { echo "the behaviour has changed"; exit 1; }
