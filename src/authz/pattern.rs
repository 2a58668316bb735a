//! Lists of values: one wanted value must match, and no unwanted value may match.

/// How certain a match must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The condition matches in every possible interpretation of the request, and all values are
    /// known.
    Sure,
    /// The condition may match: one possible interpretation is enough.
    Possible,
}

impl Certainty {
    /// Returns the certainty that a negation needs: "certainly not A" means "not possibly A".
    pub(super) fn of_opposite(self) -> Self {
        match self {
            Self::Sure => Self::Possible,
            Self::Possible => Self::Sure,
        }
    }
}

/// Wanted and unwanted values. If there are wanted values, one of them must match. No unwanted
/// value may match.
#[derive(Clone, Debug)]
pub struct Choice<P> {
    /// The value must match one of these. Empty means any value.
    pub wanted: Vec<P>,
    /// The value must match none of these.
    pub unwanted: Vec<P>,
}

impl<P> Default for Choice<P> {
    fn default() -> Self {
        Self { wanted: Vec::new(), unwanted: Vec::new() }
    }
}

impl<P> Choice<P> {
    /// Whether both lists are empty.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// Returns the name of the field with the wanted values or, if there are none, of the field
    /// with the unwanted values.
    pub(super) fn field(&self, [wanted, unwanted]: [&'static str; 2]) -> &'static str {
        if self.wanted.is_empty() { unwanted } else { wanted }
    }

    /// Whether `value` matches. An unknown value (`None`) never matches a wanted value. With
    /// unwanted values, it matches possibly but not certainly: a peer without an identity may be
    /// anyone.
    pub(super) fn holds<V: Copy>(
        &self,
        value: Option<V>,
        certainty: Certainty,
        fits: impl Fn(&P, V, Certainty) -> bool,
    ) -> bool {
        let Some(value) = value else {
            let harmless = self.unwanted.is_empty() || certainty == Certainty::Possible;
            return self.wanted.is_empty() && harmless;
        };
        let opposite = certainty.of_opposite();
        (self.wanted.is_empty() || self.wanted.iter().any(|p| fits(p, value, certainty)))
            && !self.unwanted.iter().any(|p| fits(p, value, opposite))
    }
}
