//! The sources of configuration. Each gives resources of the model.

pub mod files;
