//! The webhook: HTTPS that answers AdmissionReviews.

use std::future::IntoFuture as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Router, serve as serve_http};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};

use super::connections::Incoming;
use super::review::review;
use super::settings::Settings;
use crate::compile::check_certificate;
use crate::error::plain;
use crate::file;
use crate::tls::PROVIDER;

/// The maximum size of a review, in bytes. An object of Kubernetes has at most 1.5 MiB in etcd, and
/// a review may have two.
const REVIEW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A larger review needs one of [`LARGE_MAX`] places.
const SMALL_BYTES_MAX: u64 = 128 * 1024;

/// The maximum number of large reviews at a time. They bound the memory.
const LARGE_MAX: usize = 16;

/// How long requests may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How often the files of the certificate are read again.
const RENEWAL: Duration = Duration::from_secs(2);

/// The maximum size of a file of the certificate.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The parameters of [`serve`].
#[derive(Clone, Debug)]
pub struct Serving {
    /// The address to listen on.
    pub address: SocketAddr,
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Serves the webhook until SIGTERM or SIGINT.
///
/// # Errors
/// If the certificate cannot be used, or the address cannot be opened.
pub fn serve(serving: &Serving, settings: Settings) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {}", plain(&error)))?;
    runtime.block_on(run(serving, settings))
}

async fn run(serving: &Serving, settings: Settings) -> Result<(), String> {
    let files = Files::read(serving)?;
    let config = Arc::new(RwLock::new(files.config()?));
    let address = serving.address;
    let cannot = |error: io::Error| format!("cannot listen on {address}: {}", plain(&error));
    let socket = TcpListener::bind(address).await.map_err(cannot)?;
    let bound = socket.local_addr().map_err(cannot)?;
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    let renewing = tokio::spawn(renew(serving.clone(), files, Arc::clone(&config)));
    tracing::info!("the webhook is listening on {bound}");
    let incoming = Incoming::new(socket, config);
    let hook = Hook { settings, large: Semaphore::new(LARGE_MAX), work: Semaphore::new(1) };
    let router = Router::new()
        .route("/inject", post(answer))
        .route("/ready", get(|| async { "ready\n" }))
        .route("/live", get(|| async { "live\n" }))
        .layer(DefaultBodyLimit::max(REVIEW_BYTES_MAX))
        .with_state(Arc::new(hook));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve_http(incoming, router).with_graceful_shutdown(async {
        stopped.await.ok();
    });
    let mut server = pin!(server.into_future());
    let ended = tokio::select! {
        ended = &mut server => ended,
        () = told(&mut term, &mut int) => {
            drop(stop);
            // A client that does not finish its request must not keep the process.
            tokio::select! {
                ended = &mut server => ended,
                () = tokio::time::sleep(END_LIMIT) => Ok(()),
                () = told(&mut term, &mut int) => Ok(()),
            }
        }
    };
    renewing.abort();
    ended.map_err(|error| plain(&error))
}

/// Waits for SIGTERM or SIGINT.
async fn told(term: &mut Signal, int: &mut Signal) {
    tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
}

/// The state of the webhook.
struct Hook {
    settings: Settings,
    /// Places for the bodies of large reviews.
    large: Semaphore,
    /// One large review is worked on at a time.
    work: Semaphore,
}

async fn answer(State(hook): State<Arc<Hook>>, request: Request) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    let is_small = length.is_some_and(|length| length <= SMALL_BYTES_MAX);
    let permit = if is_small { None } else { hook.large.try_acquire().ok() };
    if !is_small && permit.is_none() {
        tracing::warn!("too many large reviews at a time");
        return (StatusCode::SERVICE_UNAVAILABLE, "too many large reviews\n").into_response();
    }
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(refused) => return refused.into_response(),
    };
    let done = match is_small {
        true => review(&body, &hook.settings),
        // Small reviews do not wait for a large one.
        false => {
            let _turn = hook.work.acquire().await;
            let shared = Arc::clone(&hook);
            let done = tokio::task::spawn_blocking(move || review(&body, &shared.settings)).await;
            done.unwrap_or_else(|error| Err(error.to_string()))
        }
    };
    drop(permit);
    match done {
        Ok(answer) => {
            tracing::info!("{}", answer.told);
            ([(header::CONTENT_TYPE, "application/json")], answer.body.to_string()).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "a request is no review");
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
    }
}

/// The contents of the files of the certificate.
#[derive(PartialEq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(serving: &Serving) -> Result<Self, String> {
        let read = |path: &Path| {
            file::read(path, FILE_BYTES_MAX)
                .map_err(|error| format!("cannot read {}: {}", path.display(), plain(&error)))
        };
        Ok(Self { certificate: read(&serving.certificate)?, key: read(&serving.key)? })
    }

    fn config(&self) -> Result<Arc<ServerConfig>, String> {
        check_certificate(&self.certificate, &self.key)?;
        let chain = CertificateDer::pem_slice_iter(&self.certificate).filter_map(Result::ok);
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| error.to_string())?;
        let config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_safe_default_protocol_versions()
            .and_then(|it| it.with_no_client_auth().with_single_cert(chain.collect(), key));
        config.map(Arc::new).map_err(|error| format!("the certificate cannot be used: {error}"))
    }
}

/// Uses the certificate in the files when they change. If they have a mistake, the old one stays.
async fn renew(serving: Serving, mut files: Files, config: Arc<RwLock<Arc<ServerConfig>>>) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(RENEWAL).await;
        let read = Files::read(&serving).and_then(|new| match new == files {
            true => Ok(None),
            false => new.config().map(|config| Some((new, config))),
        });
        match read {
            Ok(None) => {}
            Ok(Some((new, made))) => {
                *config.write().unwrap_or_else(PoisonError::into_inner) = made;
                files = new;
                told.clear();
                tracing::info!("the webhook has a new certificate");
            }
            Err(error) if error != told => {
                tracing::warn!(%error, "the webhook keeps its certificate");
                told = error;
            }
            Err(_) => {}
        }
    }
}
