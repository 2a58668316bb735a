//! Conditions on the fields of a request.

use super::facts::Facts;
use super::pattern::Certainty;
use crate::jwt::ClaimMatch;
use crate::matching::ValueMatch;

/// Additional conditions of a rule (Istio's `when`).
#[derive(Clone, Debug, Default)]
pub struct When {
    /// Header fields that must all match. If a field has several lines, every line must match for
    /// certainty; for a possible match one is enough. The service may read the first or the last
    /// line.
    pub headers: Vec<(Box<str>, ValueMatch)>,
    /// Token claims that must all match. Without a token none matches.
    pub claims: Vec<ClaimMatch>,
}

impl When {
    pub(super) fn holds(&self, facts: &Facts<'_>, certainty: Certainty) -> bool {
        let Some(request) = &facts.request else {
            let none = self.headers.is_empty() && self.claims.is_empty();
            return none || certainty == Certainty::Possible;
        };
        let claimed = |wanted: &ClaimMatch| request.claims.is_some_and(|it| wanted.fits(it));
        self.claims.iter().all(claimed)
            && self.headers.iter().all(|(name, wanted)| {
                let mut lines =
                    request.head.values(name.as_bytes()).map(|value| wanted.fits(value));
                match certainty {
                    Certainty::Possible => lines.any(|fits| fits),
                    Certainty::Sure => lines.next() == Some(true) && lines.all(|fits| fits),
                }
            })
    }
}
