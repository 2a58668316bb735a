//! Sidecars: traffic that the kernel turns aside, in network namespaces. Runs as root, and says
//! SKIPPED when it cannot.

mod datagrams;
mod inbound;
mod members;
mod outbound;
mod passthrough;
mod rules;
mod server_first;
