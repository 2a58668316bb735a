//! From what is wanted to what the workers use.

pub mod registry;
