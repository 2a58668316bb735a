//! Sidecars: traffic that the kernel turns aside, in network namespaces. Runs as root, and says
//! SKIPPED when it cannot.

mod inbound;
mod members;
mod outbound;
mod passthrough;
mod rules;
