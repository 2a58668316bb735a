//! Keys of session tickets: shared by the workers, kept across reloads, rotated by rustls.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

/// How many sessions of a listener are kept for early data. Beyond it, the oldest ones are dropped,
/// and their clients do a full handshake.
const EARLY_SESSIONS_MAX: usize = 8192;

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

/// The sessions of a listener that accepts early data.
pub type EarlySessions = Arc<dyn StoresServerSessions>;

/// The sessions of each listener that accepts early data. All workers share them: a ticket would be
/// accepted by each of them, and by each again and again.
#[derive(Default)]
pub struct EarlySessionStores(HashMap<String, (u64, EarlySessions)>);

impl EarlySessionStores {
    /// Returns the sessions of `listener`. They are dropped when `terms` changes: early data may
    /// use the limits of the earlier connection.
    pub fn of(&mut self, listener: &str, terms: u64) -> EarlySessions {
        if let Some((known, sessions)) = self.0.get(listener)
            && *known == terms
        {
            return Arc::clone(sessions);
        }
        let sessions: EarlySessions = ServerSessionMemoryCache::new(EARLY_SESSIONS_MAX);
        self.0.insert(listener.to_owned(), (terms, Arc::clone(&sessions)));
        sessions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_sessions_are_used_once_and_end_with_their_terms() {
        let mut stores = EarlySessionStores::default();
        let first = stores.of("web", 1);
        assert!(first.put(b"key".to_vec(), b"session".to_vec()));
        assert!(stores.of("web", 2).take(b"key").is_none());
        assert!(first.take(b"key").is_some() && first.take(b"key").is_none());
        assert!(Arc::ptr_eq(&stores.of("db", 1), &stores.of("db", 1)));
    }

    #[test]
    fn keys_stay_until_others_are_accepted() {
        let mut keys = TicketKeys::default();
        let first = keys.of("web", 1).unwrap();
        assert!(Arc::ptr_eq(&first, &keys.of("web", 1).unwrap()));
        assert!(!Arc::ptr_eq(&first, &keys.of("db", 1).unwrap()));
        assert!(!Arc::ptr_eq(&first, &keys.of("web", 2).unwrap()));
    }
}
