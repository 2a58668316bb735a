//! Decides whether a response is passed to the client or the request is sent again. Pure: no
//! I/O, no clock.

mod verdict;

pub use verdict::{Circumstances, Heard, REPEATS_MAX, Verdict, verdict};
