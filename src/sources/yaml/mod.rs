//! YAML with the place of each value, and the messages about mistakes in it. Sources that read
//! files share it.

pub mod diagnostic;
pub mod node;
mod syntax;
