//! The webhook: HTTPS that answers AdmissionReviews.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Router, serve as serve_http};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::review::review;
use super::settings::Settings;
use crate::compile::check_certificate;
use crate::error::plain;
use crate::file;
use crate::tls::PROVIDER;

/// The maximum size of a review, in bytes. An object of Kubernetes has at most 1.5 MiB in etcd, and
/// a review may have two.
const REVIEW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The maximum number of connections, with those in their handshake.
const CONNECTIONS_MAX: usize = 256;

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection may be silent. The API server keeps connections for its next reviews.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// The pause after a connection could not be accepted, for example for want of descriptors.
const PAUSE: Duration = Duration::from_millis(500);

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
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let incoming = Incoming { socket, config, room, handshakes: JoinSet::new() };
    let router = Router::new()
        .route("/inject", post(answer))
        .route("/ready", get(|| async { "ready\n" }))
        .route("/live", get(|| async { "live\n" }))
        .layer(DefaultBodyLimit::max(REVIEW_BYTES_MAX))
        .with_state(Arc::new(settings));
    let ended = serve_http(incoming, router).with_graceful_shutdown(async move {
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
    });
    let ended = ended.await.map_err(|error| plain(&error));
    renewing.abort();
    ended
}

async fn answer(State(settings): State<Arc<Settings>>, body: Bytes) -> Response {
    match review(&body, &settings) {
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

/// The connections of the webhook, after their handshakes.
struct Incoming {
    socket: TcpListener,
    config: Arc<RwLock<Arc<ServerConfig>>>,
    room: Arc<Semaphore>,
    handshakes: JoinSet<io::Result<Connection>>,
}

impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        loop {
            let room = Arc::clone(&self.room);
            let accepted = async {
                // Only closing the semaphore is an error.
                let permit = room.acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((self.socket.accept().await?.0, permit))
            };
            tokio::select! {
                accepted = accepted => match accepted {
                    Ok((stream, permit)) => {
                        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
                        let tls = TlsAcceptor::from(Arc::clone(&config));
                        drop(config);
                        self.handshakes.spawn(handshake(tls, stream, permit));
                    }
                    Err(error) => {
                        let error = plain(&error);
                        tracing::warn!(%error, "the webhook cannot accept a connection");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                // A failed handshake must not hide the next one that ends.
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Ok(connection)) = ended {
                        return (connection, ());
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

async fn handshake(
    tls: TlsAcceptor,
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    stream.set_nodelay(true).ok();
    let done = tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await;
    let stream = done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let silence = Box::pin(tokio::time::sleep(SILENCE_LIMIT));
    Ok(Connection { stream, silence, _permit: permit })
}

/// A connection that ends when its client is silent for too long.
struct Connection {
    stream: TlsStream<TcpStream>,
    silence: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            let end = tokio::time::Instant::now() + SILENCE_LIMIT;
            self.silence.as_mut().reset(end);
            return read;
        }
        self.silence.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
