//! Keys of session tickets: shared by the workers, kept across reloads, rotated by rustls.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

/// Returns a hash of `parts`, which describe the accepted peers.
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
    /// Returns the ticket keys of `listener`. The keys are replaced when `terms` changes. A ticket
    /// replaces the check of a client certificate, so clients that were accepted under other rules
    /// must do a full handshake again.
    ///
    /// # Errors
    /// When the system does not provide random bytes.
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
