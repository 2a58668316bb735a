//! The limit on open files.

use crate::error::plain;

/// Raises the soft limit on open files to the hard limit, because each proxied connection needs two
/// descriptors. The default soft limit of 1024 is meant for programs that use select(2).
pub(super) fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(
            error = %plain(&error), soft_limit = soft, hard_limit = hard,
            "cannot raise the limit on open files; the proxy runs with the soft limit: raise it \
             (`ulimit -n`, LimitNOFILE=)"
        );
    }
}
