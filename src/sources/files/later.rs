//! Keys that only later versions support. They are refused by name, because a policy that is
//! silently not enforced is worse than none.

/// Keys of later versions, at any place.
const FIELDS: [&str; 2] = ["tracing", "http3"];

/// Whether a later version supports this field.
pub fn is_later_field(name: &str) -> bool {
    FIELDS.contains(&name)
}

/// The advice for such a field.
pub fn help(name: &str) -> String {
    format!("leave it out: Ringway has no `{name}` yet, and nothing takes its place")
}
