//! Keys that only later versions support. They are refused by name, because a policy that is
//! silently not enforced is worse than none.

/// Keys of later versions, at any place.
const FIELDS: [&str; 8] = [
    "retries",
    "circuit_breaker",
    "outlier_detection",
    "mirror",
    "fault",
    "rate_limit",
    "tracing",
    "http3",
];

/// Whether a later version supports this field.
pub fn is_later_field(name: &str) -> bool {
    FIELDS.contains(&name)
}
