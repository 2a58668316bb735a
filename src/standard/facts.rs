//! Facts about requests that overrides show as labels. Clients choose them, so their number is
//! bounded like that of the series.

use super::LABELS;

/// A fact about a request that an override may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The method.
    Method,
    /// The host, without its port.
    Host,
    /// The path, without its query.
    Path,
}

impl Fact {
    /// All facts, in the order of [`Fact::index`].
    pub const ALL: [Self; 3] = [Self::Method, Self::Host, Self::Path];

    /// The position in [`Fact::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The maximum length of a fact in a label, in bytes.
pub const FACT_BYTES_MAX: usize = 256;

/// The facts about some requests. A fact that no override shows is empty.
#[derive(Debug)]
pub struct RequestFacts {
    /// The number of these facts in [`super::Key::facts`].
    pub id: u32,
    /// The facts, in the order of [`Fact::ALL`].
    pub values: [Box<str>; Fact::ALL.len()],
}

/// The value of a label that an override sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelValue {
    /// The same for all series.
    Fixed(Box<str>),
    /// That of another label, an index of [`LABELS`], or a text where that one is not known.
    Label(usize, Option<Box<str>>),
    /// A fact about the requests, or a text where there is none, such as for TCP.
    Fact(Fact, Option<Box<str>>),
}

impl LabelValue {
    /// The value for a series with these labels and facts.
    pub fn of<'a>(
        &'a self,
        labels: &'a [String; LABELS.len()],
        facts: Option<&'a RequestFacts>,
    ) -> &'a str {
        let (value, otherwise) = match self {
            Self::Fixed(text) => return text,
            Self::Label(index, otherwise) => (&*labels[*index], otherwise),
            Self::Fact(fact, otherwise) => {
                (facts.map_or("", |facts| &*facts.values[fact.index()]), otherwise)
            }
        };
        match otherwise {
            Some(text) if value.is_empty() || value == "unknown" => text,
            _ if value.is_empty() => "unknown",
            _ => value,
        }
    }
}

/// Writes the facts of a request as one text, the key of [`RequestFacts`]. `wanted` are the facts
/// that overrides show.
pub fn put_facts(out: &mut Vec<u8>, wanted: &[Fact], put: impl Fn(Fact, &mut Vec<u8>)) {
    out.clear();
    for fact in Fact::ALL {
        let begin = out.len();
        if wanted.contains(&fact) {
            put(fact, out);
            out.truncate(begin + FACT_BYTES_MAX);
            // The separator cannot be a part of a value.
            out[begin..].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
        }
        out.push(0);
    }
}

/// The facts in a text of [`put_facts`].
pub(super) fn read_facts(text: &[u8]) -> [Box<str>; Fact::ALL.len()] {
    let mut parts = text.split(|byte| *byte == 0);
    Fact::ALL.map(|_| String::from_utf8_lossy(parts.next().unwrap_or_default()).into())
}
