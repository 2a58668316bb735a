//! Mirrors: a copy of a request goes to another destination, too.

use std::time::Duration;

use super::Item;

/// A mirror: a copy of a request goes to another destination, too. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// The destination, `SERVICE` or `SERVICE/VERSION`. It is required.
    pub to: Option<Item<String>>,
    /// The share of the requests, in millionths ([`super::SHARE_PARTS`]).
    pub share: Option<u32>,
    /// The largest request body that is mirrored, in bytes.
    pub mirror_bytes: Option<usize>,
    /// The time limit of a mirrored request.
    pub timeout: Option<Duration>,
    /// Whether the host of a mirrored request ends with `-shadow`.
    pub shadow_host: Option<bool>,
}
