//! The keys of etcd as this proxy knows them: which message leads to which state. No I/O.

use std::collections::BTreeMap;

use crate::grpc::etcd::{Event, Header, Range, WatchMessage};
use crate::sources::documents::Documents;

/// The keys and values of the last message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    header: Header,
    values: BTreeMap<Box<[u8]>, Box<[u8]>>,
    bytes: usize,
}

/// The meaning of a message of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing has changed.
    Same,
    /// The documents have changed.
    Changed,
    /// Changes are lost, so all keys must be read again. The text is the reason.
    ReadAgain(String),
    /// The watch has ended.
    Ended(String),
}

impl State {
    /// The state after all keys were read.
    ///
    /// # Errors
    /// If the values have more than `bytes_max` bytes, or if some keys are missing.
    pub(super) fn of_range(range: &Range<'_>, bytes_max: usize) -> Result<Self, String> {
        if range.more {
            return Err("the answer does not have all keys".to_owned());
        }
        let mut state = Self { header: range.header, ..Self::default() };
        for pair in &range.all {
            state.put(pair.key, pair.value);
        }
        state.check_size(bytes_max).map(|()| state)
    }

    /// The revision of the last message.
    pub(super) fn revision(&self) -> u64 {
        self.header.revision
    }

    /// The documents of this state.
    pub(super) fn documents(&self) -> Documents {
        let pairs = self.values.iter().map(|(key, value)| (&**key, &**value));
        Documents::new(self.header.revision, pairs, super::NAME)
    }

    /// Takes a message of a watch that began after this state.
    ///
    /// # Errors
    /// If the values have more than `bytes_max` bytes now.
    pub(super) fn take(
        &mut self,
        message: &WatchMessage<'_>,
        bytes_max: usize,
    ) -> Result<Step, String> {
        let Header { cluster, revision } = message.header;
        if message.canceled {
            // The stream stays open after this message, so nothing else would tell of the end.
            return Ok(match message.compact_revision {
                0 => Step::Ended(format!("the watch was cancelled: {}", message.cancel_reason)),
                oldest => Step::ReadAgain(format!("revisions before {oldest} were compacted")),
            });
        }
        if cluster != self.header.cluster {
            return Ok(Step::ReadAgain("this is another cluster".to_owned()));
        }
        if revision < self.header.revision {
            let known = self.header.revision;
            return Ok(Step::ReadAgain(format!(
                "the revision went back from {known} to {revision}"
            )));
        }
        if message.events.is_empty() {
            // The start of a watch may tell of a later revision whose changes come after it.
            return Ok(Step::Same);
        }
        for event in &message.events {
            match event {
                Event::Put(pair) => self.put(pair.key, pair.value),
                Event::Delete(pair) => self.remove(pair.key),
            }
            // The header may already have a later revision, whose changes are not sent yet.
            let (Event::Put(pair) | Event::Delete(pair)) = event;
            self.header.revision = self.header.revision.max(pair.revision);
        }
        self.check_size(bytes_max).map(|()| Step::Changed)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.remove(key);
        self.bytes += value.len();
        self.values.insert(key.into(), value.into());
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(value) = self.values.remove(key) {
            self.bytes -= value.len();
        }
    }

    fn check_size(&self, bytes_max: usize) -> Result<(), String> {
        match self.bytes > bytes_max {
            true => Err(format!(
                "the documents have {} bytes, and `max_bytes` is {bytes_max}",
                self.bytes
            )),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::etcd::KeyValue;

    const MAX: usize = 100;

    fn pair<'a>(key: &'a str, value: &'a str) -> KeyValue<'a> {
        KeyValue { key: key.as_bytes(), revision: 12, value: value.as_bytes() }
    }

    fn header(revision: u64) -> Header {
        Header { cluster: 1, revision }
    }

    fn state() -> State {
        let all = vec![pair("/r/a", "1"), pair("/r/b", "2")];
        State::of_range(&Range { header: header(10), all, more: false }, MAX).unwrap()
    }

    fn shown(state: &State) -> Vec<(String, String)> {
        let texts = state.documents().texts;
        texts.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }

    #[test]
    fn a_transaction_is_one_change() {
        let mut state = state();
        let events = vec![
            Event::Put(pair("/r/b", "3")),
            Event::Delete(pair("/r/a", "")),
            Event::Put(pair("/r/c", "4")),
        ];
        let message = WatchMessage { header: header(90), events, ..WatchMessage::default() };
        assert_eq!(state.take(&message, MAX), Ok(Step::Changed));
        let document = |key: &str, text: &str| (format!("etcd:/r/{key}"), text.to_owned());
        assert_eq!(shown(&state), [document("b", "3"), document("c", "4")]);
        assert_eq!((state.revision(), state.documents().revision), (12, 12));
    }

    /// The stream stays open after such messages, so each must lead to an action.
    #[test]
    fn a_message_that_loses_changes_makes_the_proxy_read_again() {
        let canceled = |compact_revision| WatchMessage {
            canceled: true,
            compact_revision,
            cancel_reason: "no permission".to_owned(),
            ..WatchMessage::default()
        };
        let begun = |cluster, revision| WatchMessage {
            header: Header { cluster, revision },
            created: true,
            ..WatchMessage::default()
        };
        let again = |why: &str| Step::ReadAgain(why.to_owned());
        let ended = "the watch was cancelled: no permission".to_owned();
        for (message, step) in [
            (canceled(40), again("revisions before 40 were compacted")),
            (canceled(0), Step::Ended(ended)),
            (begun(2, 10), again("this is another cluster")),
            (begun(1, 3), again("the revision went back from 10 to 3")),
            (begun(1, 10), Step::Same),
            (begun(1, 90), Step::Same),
        ] {
            let mut state = state();
            assert_eq!(state.take(&message, MAX), Ok(step));
            assert_eq!(state, self::state(), "the state is kept");
        }
    }

    #[test]
    fn the_size_is_that_of_all_values_now() {
        let mut state = state();
        let put = |value| WatchMessage {
            header: header(12),
            events: vec![Event::Put(pair("/r/a", value))],
            ..WatchMessage::default()
        };
        let (full, over) = ("x".repeat(MAX - 1), "x".repeat(MAX));
        assert_eq!(state.take(&put(&full), MAX), Ok(Step::Changed));
        assert_eq!(state.take(&put(&full), MAX), Ok(Step::Changed), "it replaces itself");
        let error = "the documents have 101 bytes, and `max_bytes` is 100";
        assert_eq!(state.take(&put(&over), MAX), Err(error.to_owned()));
        let all = vec![pair("/r/a", &over), pair("/r/b", "2")];
        let range = Range { header: header(1), all, more: false };
        assert_eq!(State::of_range(&range, MAX), Err(error.to_owned()));
    }
}
