//! The claims of a token, and conditions on them.

use serde_json::{Map, Value};

use crate::matching::ValueMatch;

/// The claims of a token that was accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(Map<String, Value>);

/// A condition on one claim.
#[derive(Clone, Debug)]
pub struct ClaimMatch {
    /// The name of the claim; `a.b` also means the claim `b` in the object `a`.
    pub name: Box<str>,
    /// The condition for the value of the claim, or for one of the elements of a list.
    pub wanted: ValueMatch,
}

impl Claims {
    /// Returns the value of a claim by its name, or by its path through objects (`a.b`).
    pub fn get(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(name) {
            return Some(value);
        }
        let mut names = name.split('.');
        let mut value = self.0.get(names.next()?)?;
        for name in names {
            value = value.get(name)?;
        }
        Some(value)
    }

    /// The issuer and the subject, as `ISSUER/SUBJECT`. `None` if one of them is missing.
    pub fn principal(&self) -> Option<Vec<u8>> {
        let (issuer, subject) = (self.text("iss")?, self.text("sub")?);
        Some([issuer.as_bytes(), b"/", subject.as_bytes()].concat())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Returns a time (NumericDate, RFC 7519 2) in Unix seconds, without fractions.
    pub(super) fn seconds(&self, name: &str) -> Option<i64> {
        let value = self.0.get(name)?;
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }

    /// Whether `aud` (one value or a list) contains one of `audiences`.
    pub(super) fn is_for(&self, audiences: &[Box<str>]) -> bool {
        let is_one = |value: &Value| audiences.iter().any(|wanted| value == &**wanted);
        match self.0.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_one),
            Some(value) => is_one(value),
            None => false,
        }
    }
}

impl From<Map<String, Value>> for Claims {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

impl ClaimMatch {
    /// Whether the claim is present and matches. In a list, one element must match. `scope` and
    /// `scp` are lists separated by spaces (RFC 8693 4.2).
    pub fn fits(&self, claims: &Claims) -> bool {
        let Some(value) = claims.get(&self.name) else { return false };
        match value {
            Value::Array(list) => list.iter().any(|element| self.fits_one(element)),
            Value::String(text) if matches!(&*self.name, "scope" | "scp") => {
                self.wanted.fits(text.as_bytes())
                    || text.split(' ').any(|scope| self.wanted.fits(scope.as_bytes()))
            }
            value => self.fits_one(value),
        }
    }

    fn fits_one(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.wanted.fits(text.as_bytes()),
            Value::Bool(_) | Value::Number(_) => self.wanted.fits(value.to_string().as_bytes()),
            Value::Null => false,
            Value::Array(_) | Value::Object(_) => matches!(self.wanted, ValueMatch::Present),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_look_into_lists_objects_and_scopes() {
        let text = r#"{"sub":"jo","admin":true,"level":7,"groups":["dev","ops"],"none":null,
            "scope":"read write:all","realm":{"roles":["boss"],"x.y":"z"},"a.b":"flat","aud":[]}"#;
        let claims = Claims(serde_json::from_str(text).unwrap());
        for (name, wanted, expected) in [
            ("sub", "jo", true),
            ("sub", "j", false),
            ("sub", "~j.", true),
            ("admin", "true", true),
            ("level", "7", true),
            ("groups", "ops", true),
            ("groups", "dev,ops", false),
            ("scope", "read", true),
            ("scope", "write:all", true),
            ("scope", "read write:all", true),
            ("scope", "write", false),
            ("realm.roles", "boss", true),
            ("realm.roles", "dev", false),
            ("realm", "boss", false),
            ("a.b", "flat", true),
            ("none", "null", false),
            ("missing", "~.*", false),
            ("aud", "~.*", false),
        ] {
            let condition =
                ClaimMatch { name: name.into(), wanted: ValueMatch::parse(wanted).unwrap() };
            assert_eq!(condition.fits(&claims), expected, "{name}: {wanted}");
        }
        let present = ClaimMatch { name: "realm".into(), wanted: ValueMatch::Present };
        assert!(present.fits(&claims));
    }
}
