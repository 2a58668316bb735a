//! Fills the placeholders of advice with values of the author's configuration. Advice with an
//! example value would change the configuration of an author who copies it.
//!
//! A placeholder has the form `{NAMES=EXAMPLE}`; `|` separates the names. Its value is that of the
//! first name that has one. If no name has a value, the example is used:
//!
//! | name | value |
//! |---|---|
//! | nothing | the text |
//! | `*` | the text, or the texts of a list; a text with commas is a list |
//! | `*KEY` | the same of the entry KEY |
//! | `#` | a number |
//! | `~`, `~ms` | a length of time with its unit; a number alone is in seconds or milliseconds |
//! | `~per` | the same as `per: TIME` |
//! | `@` | the address to listen on; a port alone is on all addresses |
//! | `^` | the addresses to connect to |
//! | `urlparts` | a URL as the keys of a redirect |
//! | `pathbelow`, `pathalone`, `pathdir` | the path `/a` as `/a/*`, `/a` and `/a/` |
//! | `pathmatch` | a path, or a map with `exact`, `prefix` or `regex`, as a path of `match` |
//! | `pathwords`, `orbegins` | the same with words about prefixes, and those words alone |
//! | `novariables` | words about a variable of another proxy, if there is one |
//! | `toversion`, `paths` | a destination with its version, and rules for keys that are paths |
//! | `jwts`, `matchparts` | token providers, and Envoy's conditions on fields |
//! | `anyof`, `anypath` | a regex for all values or paths of a list |
//! | `local`, `portvalues` | a port of this machine alone, and ports as keys |
//! | `none` | `none`, if the text means that there is no limit |
//! | `checkpath` | the path in the text of a health check |
//! | `hostname` | the first name of a host |
//! | `equal` | the text to compare with, as a value of `match.headers` |
//! | `regex`, `begins`, `ends` | the same as a regex |
//! | `answer` | the action of a rule that answers as the status, the text or the URL says |
//! | `target` | `to: SERVICE` for the name of a service or for an address |
//! | `toservice` | only the `to: SERVICE` of it |
//! | `reach` | `endpoints` or `dns` of a service |
//! | `noshare`, `ofzone` | nothing, if the share of a fault or the rate of a zone is there |
//! | `rate`, `zone`, `bucket` | nginx's rate and zone, and Envoy's bucket, in `rate_limit` |
//! | `size`, `kib` | a size such as `100k`, and a number of KiB |
//! | `fault`, `delay`, `abort`, `bandwidth`, `mirror`, `copies` | the map, with the own share |
//! | `percent` | a share |
//! | `pairs` | header fields as `NAME: VALUE` |
//! | `level` | the entries of a map that Ringway does not have |
//! | `value` | the whole value in one line |
//! | `stdev` | Envoy's thousandths |
//! | `keys` | the same as the map of a service |
//! | `services`, `listeners` | the entries of a map, or of a list whose entries have a `name` |
//! | `weights` | the names of services with their weights |
//! | `endpoint` | `address` of an endpoint, or `dns` of its service |
//! | `key`, `above` | the key, and the one above its map |
//! | `limits`, `copy`, `fields`, `mirrorshare`, `weighted` | the key with those beside it |
//! | `to`, `oldpath`, `versions` | `to` and the path of the rule, the versions of the service |
//! | `allowed`, `denied`, `denyall` | rules of `authorization` for addresses |
//! | `cidrs`, `ownport`, `tcpports` | addresses, the listener's port, ports of opaque bytes |
//! | `istiowhen`, `registry`, `budget` | a condition and a mode of Istio, and a budget of Linkerd |
//! | `traefik` | the entry of `routes` for a rule of Traefik |
//! | `loglevel`, `logsection` | the variable for the level of messages, and the section for a log |
//! | `otlp` | a map with the key `otlp` |
//! | `dnshost` | the host of the service's `dns` |
//! | `clients` | the authorization rule for a condition on the address of the client |
//! | `failover`, `localshare` | Istio's zones and the share of the own one |
//! | `proxyversion` | `v1` or `v2` |
//! | `hedged` | a hedge in the `retries` that the rule has already |
//! | `norules` | the rule that Istio means by an empty list of rules |
//! | `metricof`, `tagsof` | the metric and the labels of an override of Istio |
//! | `hostrules`, `routes`, `sections` | entries of `routes` and `services` |
//! | another one | the text of the entry with this key, at any depth |

/// Fills the placeholders of `advice`. `value` returns the author's value for a name, if there is
/// one.
pub fn filled(advice: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(advice.len());
    let mut rest = advice;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        match placeholder(rest) {
            Some((names, example, len)) => {
                let own = names.split('|').find_map(value);
                out.push_str(own.as_deref().unwrap_or(example));
                rest = &rest[len..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Parses the placeholder at the beginning of `text`. Returns its names, its example and its
/// length.
fn placeholder(text: &str) -> Option<(&str, &str, usize)> {
    let (names, rest) = text.strip_prefix('{')?.split_once('=')?;
    let is_name = |c: char| c.is_ascii_lowercase() || "_|*#~@^".contains(c);
    if !names.chars().all(is_name) {
        return None;
    }
    let mut depth = 1_usize;
    let end = rest.find(|c| {
        depth = match c {
            '{' => depth + 1,
            '}' => depth - 1,
            _ => depth,
        };
        depth == 0
    })?;
    Some((names, &rest[..end], names.len() + end + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_have_the_value_of_the_first_name_that_has_one() {
        let value = |name: &str| (name == "retries").then(|| "3".to_owned());
        for (advice, expected) in [
            ("write `a: {#|retries=2}`", "write `a: 3`"),
            ("write `a: {#=2}` {", "write `a: 2` {"),
            ("{b: {=c}, d: ~.*NAME=VALUE.*}", "{b: c, d: ~.*NAME=VALUE.*}"),
            ("{} {a: b} {{retries=1}}", "{} {a: b} {3}"),
            ("write `{to={a: {b: c}}}`", "write `{a: {b: c}}`"),
            ("{to={a: b} or {c: d}} {", "{a: b} or {c: d} {"),
        ] {
            assert_eq!(filled(advice, &value), expected);
        }
    }
}
