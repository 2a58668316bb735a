//! Caches verified tokens. A client sends the same token with each request, and verifying its
//! signature costs more CPU than the rest of the request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::jwt::{Accepted, Presented, Provider, Rejection, Requirement};

/// The maximum number of cached tokens. A full cache is cleared.
const TOKENS_MAX: usize = 1024;

/// Verified tokens and their claims. A new snapshot clears the cache, because it may have other
/// keys.
#[derive(Default)]
pub struct Tokens(RefCell<HashMap<Box<[u8]>, Rc<Accepted>>>);

impl Tokens {
    /// Checks the token `found` at the time `now_unix_s`. The signature of a cached token is not
    /// verified again; only its validity period is checked.
    ///
    /// # Errors
    /// The reason why the token is refused.
    pub fn check(
        &self,
        requirement: &Requirement,
        found: Presented<'_>,
        now_unix_s: i64,
    ) -> Result<Rc<Accepted>, Rejection> {
        let is_asked = |provider: &Arc<Provider>| {
            *provider.field == *found.field
                && requirement.providers.iter().any(|asked| Arc::ptr_eq(asked, provider))
        };
        if let Some(known) = self.0.borrow().get(found.token)
            && is_asked(&known.provider)
        {
            known.still_holds(now_unix_s)?;
            return Ok(Rc::clone(known));
        }
        let accepted = Rc::new(requirement.check(found, now_unix_s)?);
        let mut tokens = self.0.borrow_mut();
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(found.token.into(), Rc::clone(&accepted));
        Ok(accepted)
    }

    /// Clears the cache.
    pub fn clear(&self) {
        *self.0.borrow_mut() = HashMap::new();
    }
}
