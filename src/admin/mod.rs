//! The admin interface on the control thread: readiness, metrics and configuration.

mod access;
mod compress;
mod dashboard;
mod listen;
mod pages;
mod peers;
mod rendering;
mod requests;

use axum::routing::get;
use axum::{Router, middleware};
use socket2::Socket;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::access::Token;
use self::listen::{Caller, Incoming};
use self::peers::Peers;
use crate::compile::{AdminPlan, AdminTls};
use crate::error::plain;
use crate::net::Address;
use crate::sources::lookup::Lookups;
use crate::telemetry::history;
use crate::telemetry::status::Status;

/// The admin interface, which may be off.
pub struct Admin {
    status: Status,
    peers: Peers,
    token: Token,
    serving: Option<Serving>,
    reading: Option<JoinHandle<()>>,
}

/// An open address.
struct Serving {
    address: Address,
    tls: Option<AdminTls>,
    /// Another handle of the socket, for the next certificate.
    socket: Socket,
    task: JoinHandle<()>,
}

impl Admin {
    /// Creates an interface that is off. The names of other proxies are looked up by `lookups`.
    pub fn new(status: Status, lookups: Lookups) -> Self {
        let peers = Peers::new(status.clone(), lookups);
        Self { status, peers, token: Token::default(), serving: None, reading: None }
    }

    /// Listens as `plan` says from now on.
    ///
    /// # Errors
    /// If the address cannot be bound. The admin interface then keeps its previous address.
    pub async fn bind(&mut self, plan: &AdminPlan) -> Result<(), String> {
        self.peers.set(&plan.peers);
        let token = plan.token.clone();
        let asks = plan.tls.as_ref().is_some_and(|tls| tls.tls.verifier.is_some());
        let known = self.serving.as_ref().filter(|it| Some(&it.address) == plan.address.as_ref());
        if known.is_some_and(|known| known.tls == plan.tls) {
            self.token.set(token, asks);
            return Ok(());
        }
        let known = known.map(|known| known.socket.try_clone());
        // If the new address cannot be bound, the old one stays, also with the new token. A reload
        // that removes the token keeps it until the address has changed.
        if token.is_some() && self.serving.is_some() {
            self.token.set(token.clone(), asks);
        }
        let Some(address) = plan.address.clone() else {
            self.stop(None);
            return Ok(());
        };
        let opened = known.unwrap_or_else(|| listen::open(&address)).and_then(|socket| {
            let incoming = Incoming::new(socket.try_clone()?, &address, plan.tls.as_ref())?;
            Ok((socket, incoming))
        });
        let (socket, incoming) = opened.map_err(|error| {
            format!(
                "the admin interface cannot listen on {address}: {}; \
                 set admin.bind to a free address, or to off",
                plain(&error)
            )
        })?;
        // A connection to the old address must not become one without a token.
        let new = Token::default();
        new.set(token, asks);
        let router = router(self.status.clone(), self.peers.clone(), new.clone());
        let service = router.into_make_service_with_connect_info::<Caller>();
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(incoming, service).await {
                let error = plain(&error);
                tracing::error!(
                    %error,
                    "the admin interface has stopped; requests are not affected, and a restart of \
                     the process starts it again"
                );
            }
        });
        self.stop(Some(&address));
        tracing::info!(%address, tls = plan.tls.is_some(), "admin interface is listening");
        self.serving = Some(Serving { address, tls: plan.tls.clone(), socket, task });
        self.token = new;
        if self.reading.is_none() {
            self.reading = Some(tokio::spawn(read_history(self.status.clone())));
        }
        Ok(())
    }

    /// Stops what is served. The file of its socket stays if it is that of `next`.
    fn stop(&mut self, next: Option<&Address>) {
        if let Some(serving) = self.serving.take() {
            serving.task.abort();
            self.token.close();
            if let Address::Unix(path) = &serving.address
                && next != Some(&serving.address)
            {
                listen::remove(path);
            }
        }
        if let Some(task) = self.reading.take() {
            task.abort();
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop(None);
    }
}

/// Reads the counters from time to time, for the dashboard.
async fn read_history(status: Status) {
    let mut ticks = tokio::time::interval(history::INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        status.read_history();
    }
}

fn router(status: Status, peers: Peers, token: Token) -> Router {
    Router::new()
        .route("/", get(dashboard::index))
        .route("/dashboard", get(dashboard::state))
        .route("/live", get(pages::live))
        .route("/ready", get(pages::ready))
        .route("/metrics", get(pages::metrics))
        .route("/config", get(pages::config))
        .route("/listeners", get(pages::listeners))
        .route("/services", get(pages::services))
        .route("/sources", get(pages::sources))
        .route("/latencies", get(pages::latencies))
        .route("/overload", get(pages::overload))
        .route("/certs", get(pages::certs))
        .route("/requests", get(requests::requests))
        .route("/requests/{id}", get(requests::request))
        .route("/tap", get(requests::tap))
        .route("/traffic", get(peers::traffic))
        .with_state(status)
        .route("/mesh", get(peers::mesh).with_state(peers))
        .layer(middleware::from_fn(compress::compress))
        .layer(middleware::from_fn_with_state(token, access::check))
}
