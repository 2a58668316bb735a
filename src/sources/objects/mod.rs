//! Objects of Kubernetes, as people write them in YAML: their kind, name, namespace and fields.
//! Reading is strict: an unknown field or value is a mistake with its place and the right spelling.

mod fields;
mod object;

pub use fields::{Fields, Reader, items, listed, spelling};
pub use object::{Object, objects};
