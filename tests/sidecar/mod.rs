//! Sidecars: traffic that the kernel redirects to the proxy, in network namespaces. The tests need
//! root. Without root, each test reports SKIPPED.

mod datagrams;
mod dead_peers;
mod families;
mod inbound;
mod members;
mod outbound;
mod own_traffic;
mod passthrough;
mod rules;
mod server_first;
mod transport;
