//! Conditions on the fields of a request.

use super::facts::Facts;
use super::mismatch::Mismatch;
use super::pattern::Certainty;
use crate::jwt::ClaimMatch;
use crate::matching::ValueMatch;

/// Additional conditions of a rule (Istio's `when`).
#[derive(Clone, Debug, Default)]
pub struct When {
    /// Header fields, which must all match. If a field has several lines, a sure match needs all
    /// lines and a possible match needs one, because the service may use the first or the last
    /// line.
    pub headers: Vec<(Box<str>, ValueMatch)>,
    /// Token claims, which must all match. Without a token, none matches.
    pub claims: Vec<ClaimMatch>,
}

impl When {
    /// Checks every condition. The error is the first condition that does not match.
    pub(super) fn check(
        &self,
        facts: &Facts<'_>,
        certainty: Certainty,
    ) -> Result<(), Mismatch<'_>> {
        let Some(request) = &facts.request else {
            let claims = self.claims.iter().map(|wanted| Mismatch::Claim(&wanted.name));
            let headers = self.headers.iter().map(|(name, _)| Mismatch::Header(name));
            let first = claims.chain(headers).next().filter(|_| certainty == Certainty::Sure);
            return first.map_or(Ok(()), Err);
        };
        let claimed = |wanted: &ClaimMatch| request.claims.is_some_and(|it| wanted.fits(it));
        if let Some(wanted) = self.claims.iter().find(|wanted| !claimed(wanted)) {
            return Err(Mismatch::Claim(&wanted.name));
        }
        for (name, wanted) in &self.headers {
            let mut lines = request.head.values(name.as_bytes()).map(|value| wanted.fits(value));
            let holds = match certainty {
                Certainty::Possible => lines.any(|fits| fits),
                Certainty::Sure => lines.next() == Some(true) && lines.all(|fits| fits),
            };
            if !holds {
                return Err(Mismatch::Header(name));
            }
        }
        Ok(())
    }
}
