//! Counters, logs and what they mean.

pub mod access;
pub mod counters;
