//! Warnings about certificates that are not valid now. They are not errors, because the proxy must
//! start even if one certificate has expired, or if the clock of the host is not set yet.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use super::diagnostic::Diagnostic;
use crate::compile::Validity;
use crate::model::Fault;

/// The warnings about the certificates that are not valid at the current time.
pub(super) fn warnings(all: &[Validity]) -> Vec<Diagnostic> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let warning = |validity| warning(validity, now).map(Diagnostic::from);
    all.iter().filter_map(warning).collect()
}

fn warning(validity: &Validity, now: i64) -> Option<Fault> {
    let valid = |(from, until): &(i64, i64)| (*from..=*until).contains(&now);
    let Validity { origin, each, roots } = validity;
    // A file of roots often contains expired ones. It is a mistake only if none is valid.
    let fine = if *roots { each.iter().any(valid) } else { each.iter().all(valid) };
    if fine {
        return None;
    }
    let (from, until) = each.iter().find(|it| !valid(it))?;
    let (problem, help) = match now < *from {
        true => (
            format!("is valid only from {} on", date(*from)),
            "use one that is valid now; or is the clock of this host wrong?",
        ),
        false => (
            format!("expired on {}", date(*until)),
            "renew it; or is the clock of this host wrong?",
        ),
    };
    let message = match roots {
        true => format!("the CA in this file {problem}: its certificates are refused"),
        false => format!("a certificate in this file {problem}: clients and servers refuse it"),
    };
    Some(Fault::warning(origin, message).help(help))
}

fn date(unix_s: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_s)
        .map_or_else(|_| format!("{unix_s} (Unix time)"), |time| time.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_yesterday_and_tomorrow_are_told_from_those_of_today() {
        let at = |each: &[(i64, i64)], roots| {
            let validity = Validity { origin: Default::default(), each: each.to_vec(), roots };
            warning(&validity, 1000).map(|fault| fault.message)
        };
        assert_eq!(at(&[(900, 1100)], false), None);
        assert!(at(&[(900, 1100), (800, 999)], false).unwrap().contains("expired on 1970-01-01"));
        assert!(at(&[(1001, 1100)], false).unwrap().contains("valid only from 1970-01-01 on"));
        assert_eq!(at(&[(800, 999), (900, 1100)], true), None);
        assert!(at(&[(800, 999)], true).is_some());
    }
}
