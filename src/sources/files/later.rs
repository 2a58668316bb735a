//! Keys that only later versions will support. Each is refused by its name: to ignore it would
//! silently not enforce a policy.

/// Keys of later versions. They are refused in every map.
const FIELDS: [&str; 1] = ["tracing"];

/// Whether only a later version supports this key.
pub fn is_later_field(name: &str) -> bool {
    FIELDS.contains(&name)
}

/// The advice for such a key.
pub fn help(name: &str) -> String {
    format!("leave it out: Ringway has no `{name}` yet, and nothing takes its place")
}
