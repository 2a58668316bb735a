//! Conditions on the fields of a request.

use super::facts::Facts;
use super::mismatch::Mismatch;
use super::pattern::{Certainty, Choice};
use crate::jwt::{ClaimMatch, Claims};
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
    /// Conditions on header fields that the request must not match, by name.
    pub not_headers: Vec<(Box<str>, ValueMatch)>,
    /// Conditions on claims that the token must not match. A request without a token matches none.
    pub not_claims: Vec<ClaimMatch>,
    /// The issuer and subject of the token, as `ISSUER/SUBJECT`.
    pub principals: Choice<ValueMatch>,
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
            let not_claims = self.not_claims.iter().map(|wanted| Mismatch::Claim(&wanted.name));
            let fields = self.headers.iter().chain(&self.not_headers);
            let headers = fields.map(|(name, _)| Mismatch::Header(name));
            let principal = (!self.principals.is_empty()).then_some(Mismatch::Principal);
            let all = claims.chain(not_claims).chain(headers).chain(principal);
            let first = { all }.next().filter(|_| certainty == Certainty::Sure);
            return first.map_or(Ok(()), Err);
        };
        let claimed = |wanted: &ClaimMatch| request.claims.is_some_and(|it| wanted.fits(it));
        if let Some(wanted) = self.claims.iter().find(|wanted| !claimed(wanted)) {
            return Err(Mismatch::Claim(&wanted.name));
        }
        if let Some(unwanted) = self.not_claims.iter().find(|unwanted| claimed(unwanted)) {
            return Err(Mismatch::Claim(&unwanted.name));
        }
        let fits = |name: &str, wanted: &ValueMatch, certainty| {
            let mut lines = request.head.values(name.as_bytes()).map(|value| wanted.fits(value));
            match certainty {
                Certainty::Possible => lines.any(|fits| fits),
                Certainty::Sure => lines.next() == Some(true) && lines.all(|fits| fits),
            }
        };
        if let Some((name, _)) = self.headers.iter().find(|(n, v)| !fits(n, v, certainty)) {
            return Err(Mismatch::Header(name));
        }
        let opposite = certainty.of_opposite();
        if let Some((name, _)) = self.not_headers.iter().find(|(n, v)| fits(n, v, opposite)) {
            return Err(Mismatch::Header(name));
        }
        if self.principals.is_empty() {
            return Ok(());
        }
        let principal = request.claims.and_then(Claims::principal);
        let fits = |wanted: &ValueMatch, value: &[u8], _| wanted.fits(value);
        match self.principals.holds(principal.as_deref(), Certainty::Possible, fits) {
            true => Ok(()),
            false => Err(Mismatch::Principal),
        }
    }
}
