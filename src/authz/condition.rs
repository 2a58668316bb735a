//! Conditions on the fields of a request.

use super::facts::Facts;
use super::pattern::Certainty;
use crate::jwt::ClaimMatch;
use crate::matching::ValueMatch;

/// What must hold besides (Istio's `when`).
#[derive(Clone, Debug, Default)]
pub struct When {
    /// Fields of the request, each of which must fit. Of one that comes in several lines, every
    /// line must fit where certainty is asked for, else one: who reads the request may take the
    /// first or the last.
    pub headers: Vec<(Box<str>, ValueMatch)>,
    /// Claims of the request's token, each of which must fit. Without a token none does.
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
