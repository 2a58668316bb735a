//! One connection to a member of etcd.

use std::time::Duration;

use crate::compile::EtcdSource;
use crate::grpc::etcd;
use crate::sources::dial::{authority, dial};
use crate::sources::lookup::Lookups;
use crate::sources::rpc::{Messages, RpcClient, Server, within};

/// A member that sends nothing for this time is asked whether it is alive. etcd refuses peers that
/// ask more often than every 5 s.
pub(super) const ALIVE: Duration = Duration::from_secs(6);

/// A message may be larger than its documents by this factor: etcd adds keys and numbers.
const OVERHEAD: usize = 2;

/// A message may have at least this size.
const MESSAGE_BYTES_MIN: usize = 1024 * 1024;

/// A connection to a member. Dropping it closes the connection.
pub(super) struct Client(RpcClient);

impl Client {
    /// Connects to the member at `host` and `port`.
    pub(super) async fn connect(
        lookups: &Lookups,
        source: &EtcdSource,
        (host, port): (&str, u16),
    ) -> Result<Self, String> {
        let server = Server {
            scheme: if source.tls.is_some() { "https" } else { "http" },
            authority: authority(host, port),
            metadata: vec![(etcd::HAS_LEADER, "true".to_owned())],
            message_bytes_max: (source.bytes_max * OVERHEAD).max(MESSAGE_BYTES_MIN),
            setting: "`max_bytes`",
        };
        let connecting = async {
            let connection = dial(lookups, source.tls.as_ref(), (host, port)).await?;
            RpcClient::begin(connection, server).await.map(Self)
        };
        within("connection", Box::pin(connecting)).await
    }

    /// Exchanges the password for a token, which later requests have.
    pub(super) async fn authenticate(&mut self, user: &str, password: &str) -> Result<(), String> {
        let message = etcd::authenticate_request(user, password);
        let answer = within("answer", self.0.call(etcd::AUTHENTICATE, &message)).await;
        let answer = answer.map_err(|why| format!("the user {user:?} is refused: {why}"))?;
        self.0.add_metadata(etcd::TOKEN, etcd::token(&answer).map_err(|_| super::NO_ETCD)?);
        Ok(())
    }

    /// Reads all keys that begin with `prefix`.
    pub(super) async fn range(&mut self, prefix: &str) -> Result<Vec<u8>, String> {
        // The answer may be large, so only its parts have a time limit.
        self.0.call(etcd::RANGE, &etcd::range_request(prefix.as_bytes())).await
    }

    /// Begins to watch the keys that begin with `prefix`, from the revision `start` on.
    pub(super) async fn watch(&mut self, prefix: &str, start: u64) -> Result<Messages, String> {
        let message = etcd::watch_request(prefix.as_bytes(), start);
        within("answer", self.0.begin_call(etcd::WATCH, &message, false)).await
    }

    /// Checks that the member is alive.
    pub(super) async fn ping(&mut self) -> Result<(), String> {
        self.0.ping().await
    }
}
