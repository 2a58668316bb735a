//! Keys of session tickets: shared by the workers, kept across reloads, rotated by rustls.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

/// A number for the terms on which peers are accepted: what stands in `parts`.
pub fn terms_of(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

/// The ticket keys of each listener.
#[derive(Default)]
pub struct TicketKeys(HashMap<String, (u64, Arc<dyn ProducesTickets>)>);

impl TicketKeys {
    /// The keys of `listener`. They are new ones when `terms` differ from before: a ticket
    /// stands for the client certificate that was checked when it was given out, so whoever was
    /// accepted by other rules has to prove himself again.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub fn of(&mut self, listener: &str, terms: u64) -> Result<Arc<dyn ProducesTickets>, Error> {
        if let Some((known, keys)) = self.0.get(listener)
            && *known == terms
        {
            return Ok(Arc::clone(keys));
        }
        let keys = Ticketer::new()?;
        self.0.insert(listener.to_owned(), (terms, Arc::clone(&keys)));
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_until_others_are_accepted() {
        let mut keys = TicketKeys::default();
        let first = keys.of("web", 1).unwrap();
        assert!(Arc::ptr_eq(&first, &keys.of("web", 1).unwrap()));
        assert!(!Arc::ptr_eq(&first, &keys.of("db", 1).unwrap()));
        assert!(!Arc::ptr_eq(&first, &keys.of("web", 2).unwrap()));
    }
}
