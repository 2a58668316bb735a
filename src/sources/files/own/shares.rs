//! Faults and mirrors of other proxies, with the share of the requests that the author wrote. A
//! share that the author did not write is not added: all requests are meant.

use super::super::node::{Kind, Node};
use super::{entry, flow, is_time, limits, own_entry, targets, text, time};

/// The keys that have a share.
const SHARES: [&str; 5] =
    ["percentage", "percent", "fraction", "runtime_fraction", "fractional_percent"];

/// The form `name` of `node`, in braces.
pub(super) fn value(node: &Node, name: &str) -> Option<String> {
    match name {
        "fault" => fault(node),
        "delay" => delay(node),
        "abort" => abort(node),
        "bandwidth" => bandwidth(node),
        "mirror" => mirror(node),
        "copies" => mirror(own_entry(node, "mirrors")?),
        "percent" => share(node),
        "noshare" => (!and_share(node).is_empty()).then(String::new),
        _ => None,
    }
}

/// The share of failures if `node` is the share of successes in percent.
pub(super) fn rest(node: &Node) -> Option<String> {
    let percent: f64 = node.text().trim_end_matches('%').parse().ok()?;
    // Below, it may be a part of 1.
    let rest = Some(100.0 - percent).filter(|_| (1.0..100.0).contains(&percent))?;
    let text = format!("{rest:.4}");
    Some(format!("{}%", text.trim_end_matches('0').trim_end_matches('.')))
}

/// The share in `node`: a number, or a map with a numerator.
pub(super) fn share(node: &Node) -> Option<String> {
    if let Some(inner) = SHARES.iter().find_map(|name| entry(node, name)) {
        return share(inner);
    }
    if let Some(value) = own_entry(node, "value").or_else(|| own_entry(node, "default_value")) {
        return share(value);
    }
    let (written, parts) = match own_entry(node, "numerator") {
        Some(numerator) => {
            let denominator = own_entry(node, "denominator").map_or("HUNDRED", Node::text);
            (
                numerator.text(),
                match denominator {
                    "HUNDRED" => 100,
                    "TEN_THOUSAND" => 10_000,
                    "MILLION" => 1_000_000,
                    _ => return None,
                },
            )
        }
        None => (node.text(), 100),
    };
    let written = written.trim_end_matches('%');
    let (whole, decimals) = written.split_once('.').unwrap_or((written, ""));
    if parts == 100 && decimals.trim_end_matches('0').is_empty() {
        let whole: u32 = whole.parse().ok().filter(|whole| *whole <= 100)?;
        return Some(whole.to_string());
    }
    let percent = written.parse::<f64>().ok()? * 100.0 / f64::from(parts);
    // A share has at most four decimals.
    let text = format!("{percent:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    (0.0..=100.0).contains(&percent).then(|| format!("{text}%"))
}

/// `, percent: N`, or nothing.
fn and_share(node: &Node) -> String {
    match node.kind {
        Kind::Map(_) | Kind::List(_) => {
            let found = SHARES.iter().find_map(|name| entry(node, name)).and_then(share);
            found.map(|share| format!(", percent: {share}")).unwrap_or_default()
        }
        Kind::Null | Kind::Scalar { .. } => String::new(),
    }
}

fn delay(node: &Node) -> Option<String> {
    let names = ["duration", "fixed_delay", "time", "delay"];
    let found = names.iter().find_map(|name| entry(node, name)).unwrap_or(node);
    let (duration, share) = (time(found, "s"), and_share(node));
    let duration = match duration {
        Some(duration) => duration,
        None if share.is_empty() => return None,
        None => "TIME".to_owned(),
    };
    Some(format!("{{duration: {duration}{share}}}"))
}

fn abort(node: &Node) -> Option<String> {
    let grpc = entry(node, "grpc_status").and_then(text).filter(|it| it.parse::<u32>().is_err());
    let names = ["status", "http_status", "code"];
    let found = names.iter().find_map(|name| entry(node, name)).unwrap_or(node);
    let status = found.text().parse::<u16>().ok();
    let share = and_share(node);
    let key = match (status, grpc) {
        (Some(status), _) => format!("status: {status}"),
        (None, Some(name)) => format!("grpc_status: {name}"),
        (None, None) if share.is_empty() => return None,
        (None, None) => "status: STATUS".to_owned(),
    };
    Some(format!("{{{key}{share}}}"))
}

fn bandwidth(node: &Node) -> Option<String> {
    let size = limits::kib(node).or_else(|| limits::size(node));
    let share = and_share(node);
    let size = match size {
        Some(size) => size,
        None if share.is_empty() => return None,
        None => "SIZE".to_owned(),
    };
    Some(format!("{{bytes_per_second: {size}{share}}}"))
}

fn fault(node: &Node) -> Option<String> {
    if is_time(node.text()) {
        return Some(format!("{{delay: {}}}", delay(node)?));
    }
    if node.text().parse::<u16>().is_ok() {
        return Some(format!("{{abort: {}}}", abort(node)?));
    }
    let part = |names: &[&str], form: &dyn Fn(&Node) -> Option<String>| {
        names.iter().find_map(|name| entry(node, name)).and_then(form)
    };
    let headers = own_entry(node, "headers").filter(|it| matches!(it.kind, Kind::Map(_)));
    let parts = [
        ("headers", headers.and_then(flow::one_line)),
        ("delay", part(&["delay", "http_delay"], &delay)),
        ("abort", part(&["abort", "http_abort"], &abort)),
        ("bandwidth", part(&["response_rate_limit", "bandwidth"], &bandwidth)),
    ];
    let parts = parts.iter().filter_map(|(key, value)| Some(format!("{key}: {}", value.as_ref()?)));
    let parts: Vec<_> = parts.collect();
    (!parts.is_empty()).then(|| format!("{{{}}}", parts.join(", ")))
}

/// One mirror. A rule has one; the first of several is the one in the advice.
fn mirror(node: &Node) -> Option<String> {
    let one = match &node.kind {
        Kind::List(items) => items.first()?,
        Kind::Null | Kind::Scalar { .. } | Kind::Map(_) => node,
    };
    Some(format!("{{to: {}{}}}", targets::destination(one)?, and_share(one)))
}
