//! Whether the answer to an attempt goes to the client, or the request is sent again. Dry.

mod verdict;

pub use verdict::{Circumstances, Heard, REPEATS_MAX, Verdict, verdict};
