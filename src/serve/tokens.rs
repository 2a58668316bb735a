//! Tokens that a worker has verified lately: the same one comes with every request of its client,
//! and its signature costs more than all the rest of the request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::jwt::{Accepted, Provider, Rejection, Requirement};

/// Tokens that are remembered; when there are more, all are forgotten.
const TOKENS_MAX: usize = 1024;

/// Tokens and what they said, as long as one snapshot is in use: another may have other keys.
#[derive(Default)]
pub struct Tokens(RefCell<HashMap<Box<[u8]>, Rc<Accepted>>>);

impl Tokens {
    /// Checks `token` at `now_unix_s`, unless it was accepted before and still holds.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn check(
        &self,
        requirement: &Requirement,
        token: &[u8],
        now_unix_s: i64,
    ) -> Result<Rc<Accepted>, Rejection> {
        let is_asked = |provider: &Arc<Provider>| {
            requirement.providers.iter().any(|asked| Arc::ptr_eq(asked, provider))
        };
        if let Some(known) = self.0.borrow().get(token)
            && is_asked(&known.provider)
        {
            known.still_holds(now_unix_s)?;
            return Ok(Rc::clone(known));
        }
        let accepted = Rc::new(requirement.check(token, now_unix_s)?);
        let mut tokens = self.0.borrow_mut();
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(token.into(), Rc::clone(&accepted));
        Ok(accepted)
    }

    /// Forgets all.
    pub fn clear(&self) {
        *self.0.borrow_mut() = HashMap::new();
    }
}
