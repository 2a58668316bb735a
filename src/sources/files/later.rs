//! Keys of the grammar that this version does not know yet. They are refused by name:
//! a policy that is written down and silently not enforced would be worse than none.

/// Keys of later versions, wherever they stand.
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

/// Whether a field is one of a later version.
pub fn is_later_field(name: &str) -> bool {
    FIELDS.contains(&name)
}
