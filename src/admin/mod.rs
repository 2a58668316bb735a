//! The admin interface on the control thread: readiness, metrics and configuration.

mod pages;
mod requests;

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::error::plain;
use crate::telemetry::status::Status;

/// The admin interface, which may be off.
pub struct Admin {
    status: Status,
    serving: Option<(SocketAddr, JoinHandle<()>)>,
}

impl Admin {
    /// Creates an interface that is off.
    pub fn new(status: Status) -> Self {
        Self { status, serving: None }
    }

    /// Listens on `address` from now on. `None` turns the interface off.
    ///
    /// # Errors
    /// If the address cannot be bound. The admin interface then keeps its previous address.
    pub async fn bind(&mut self, address: Option<SocketAddr>) -> Result<(), String> {
        if self.serving.as_ref().map(|(address, _)| *address) == address {
            return Ok(());
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
        let router = router(self.status.clone());
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
        tracing::info!(%address, "admin interface is listening");
        Ok(())
    }

    fn stop(&mut self) {
        if let Some((_, task)) = self.serving.take() {
            task.abort();
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop();
    }
}

fn router(status: Status) -> Router {
    Router::new()
        .route("/", get(pages::index))
        .route("/live", get(pages::live))
        .route("/ready", get(pages::ready))
        .route("/metrics", get(pages::metrics))
        .route("/config", get(pages::config))
        .route("/listeners", get(pages::listeners))
        .route("/services", get(pages::services))
        .route("/overload", get(pages::overload))
        .route("/certs", get(pages::certs))
        .route("/requests", get(requests::requests))
        .route("/requests/{id}", get(requests::request))
        .route("/tap", get(requests::tap))
        .with_state(status)
}
