//! The origin of each item: a place in a file, a resource of another source, or a built-in default.

use std::fmt;
use std::sync::Arc;

use super::Kind;

/// A range of text in a configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index into [`Files`].
    pub file: u16,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The length in characters, at most 65 535.
    pub len: u16,
}

/// A resource of a source that is not a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// The name of the source.
    pub source: Box<str>,
    /// The kind of the resource.
    pub kind: Kind,
    /// The name in the source.
    pub name: Box<str>,
    /// The version in the source.
    pub version: Box<str>,
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, kind, name, version } = self;
        write!(f, "{source}: {kind} {name}")?;
        if version.is_empty() { Ok(()) } else { write!(f, " (version {version})") }
    }
}

/// The origin of an item.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A default of Ringway.
    #[default]
    BuiltIn,
    /// A place in a file.
    File(Place),
    /// A resource of another source.
    Resource(Arc<ResourceId>),
}

impl Origin {
    /// The resource that the item comes from. `None` for the other origins.
    pub fn resource(&self) -> Option<&Arc<ResourceId>> {
        match self {
            Self::Resource(id) => Some(id),
            Self::BuiltIn | Self::File(_) => None,
        }
    }
}

/// A value with its origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item<T> {
    /// The value.
    pub value: T,
    /// The origin.
    pub origin: Origin,
}

impl<T> Item<T> {
    /// A value with its origin.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }
}

/// The names of the configuration files. A [`Place`] refers to a file by its index.
#[derive(Clone, Debug, Default)]
pub struct Files(Vec<Arc<str>>);

impl Files {
    /// The files with these names, in the order of [`Place::file`].
    pub fn new(names: Vec<Arc<str>>) -> Self {
        Self(names)
    }

    /// `file:line` for a place in a file; the name of the resource or `built in` for another
    /// origin.
    pub fn line_of(&self, origin: &Origin) -> String {
        match origin {
            Origin::File(place) => format!("{}:{}", self.name(place), place.line),
            Origin::Resource(id) => id.to_string(),
            Origin::BuiltIn => "built in".to_owned(),
        }
    }

    /// `file:line:column` for a place in a file; the name of the resource or `built in` for another
    /// origin.
    pub fn column_of(&self, origin: &Origin) -> String {
        match origin {
            Origin::File(place) => format!("{}:{}", self.line_of(origin), place.column),
            Origin::Resource(_) | Origin::BuiltIn => self.line_of(origin),
        }
    }

    fn name(&self, place: &Place) -> &str {
        self.0.get(usize::from(place.file)).map_or("?", |name| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_small_because_each_endpoint_has_one() {
        assert_eq!(size_of::<Origin>(), 16);
    }

    #[test]
    fn origins_name_their_source() {
        let files = Files::new(vec!["a.yaml".into()]);
        let place = Origin::File(Place { file: 0, line: 3, column: 7, len: 1 });
        assert_eq!(files.line_of(&place), "a.yaml:3");
        assert_eq!(files.column_of(&place), "a.yaml:3:7");
        let id = ResourceId {
            source: "xds".into(),
            kind: Kind::Service,
            name: "shop".into(),
            version: "7".into(),
        };
        let resource = Origin::Resource(Arc::new(id));
        assert_eq!(files.column_of(&resource), "xds: service shop (version 7)");
        assert_eq!(files.line_of(&Origin::BuiltIn), "built in");
    }
}
