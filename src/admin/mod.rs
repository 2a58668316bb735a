//! The admin interface on the control thread: readiness, metrics and configuration.

mod access;
mod dashboard;
mod pages;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::routing::get;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::access::Token;
use crate::error::plain;
use crate::telemetry::history;
use crate::telemetry::status::Status;

/// The admin interface, which may be off.
pub struct Admin {
    status: Status,
    token: Token,
    serving: Option<(SocketAddr, JoinHandle<()>)>,
    reading: Option<JoinHandle<()>>,
}

impl Admin {
    /// Creates an interface that is off.
    pub fn new(status: Status) -> Self {
        Self { status, token: Token::default(), serving: None, reading: None }
    }

    /// Listens on `address` from now on. `None` turns the interface off. Clients must send `token`,
    /// if there is one.
    ///
    /// # Errors
    /// If the address cannot be bound. The admin interface then keeps its previous address.
    pub async fn bind(
        &mut self,
        address: Option<SocketAddr>,
        token: Option<Arc<str>>,
    ) -> Result<(), String> {
        if self.serving.as_ref().map(|(address, _)| *address) == address {
            self.token.set(token);
            return Ok(());
        }
        // If the new address cannot be bound, the old one stays, also with the new token. A reload
        // that removes the token keeps it until the address has changed.
        if token.is_some() && self.serving.is_some() {
            self.token.set(token.clone());
        }
        let Some(address) = address else {
            self.stop();
            return Ok(());
        };
        let listener = TcpListener::bind(address).await.map_err(|error| {
            format!(
                "the admin interface cannot listen on {address}: {}; \
                 set admin.bind to a free address, or to off",
                plain(&error)
            )
        })?;
        // A connection to the old address must not become one without a token.
        let new = Token::default();
        new.set(token);
        let router = router(self.status.clone(), new.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                let error = plain(&error);
                tracing::error!(
                    %error,
                    "the admin interface has stopped; requests are not affected, and a restart of \
                     the process starts it again"
                );
            }
        });
        self.stop();
        self.serving = Some((address, task));
        self.token = new;
        if self.reading.is_none() {
            self.reading = Some(tokio::spawn(read_history(self.status.clone())));
        }
        tracing::info!(%address, "admin interface is listening");
        Ok(())
    }

    fn stop(&mut self) {
        if let Some((_, task)) = self.serving.take() {
            task.abort();
            self.token.close();
        }
        if let Some(task) = self.reading.take() {
            task.abort();
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop();
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

fn router(status: Status, token: Token) -> Router {
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
        .route("/overload", get(pages::overload))
        .route("/certs", get(pages::certs))
        .route("/requests", get(requests::requests))
        .route("/requests/{id}", get(requests::request))
        .route("/tap", get(requests::tap))
        .layer(middleware::from_fn_with_state(token, access::check))
        .with_state(status)
}
