//! Counters, logs and what they mean.

pub mod counters;
