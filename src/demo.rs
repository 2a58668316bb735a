//! `ringway demo`: a demo for new users. It runs a service in two versions and the proxy with a
//! canary route, and prints commands to try.

use std::io::{self, Write};
use std::net::TcpListener;
use std::path::Path;

use axum::Router;
use axum::http::Uri;
use clap::Args;

use crate::control::run::{self, RunError};
use crate::error::plain;

/// The arguments of `ringway demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// The loopback port of the proxy.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The loopback port of the admin interface.
    #[arg(long, default_value_t = 9900)]
    admin_port: u16,
}

/// Runs the demo until Ctrl-C.
///
/// # Errors
/// If a port is in use, or as for [`crate::control::run::run`].
pub fn run(arguments: &DemoArgs) -> Result<(), RunError> {
    let system =
        |error: io::Error| RunError::System(format!("the demo cannot start: {}", plain(&error)));
    check_port("--port", arguments.port)?;
    check_port("--admin-port", arguments.admin_port)?;
    let (v1, v2) = (start_version("v1").map_err(system)?, start_version("v2").map_err(system)?);
    let directory = tempfile::tempdir().map_err(system)?;
    let file = directory.path().join("demo.yaml");
    std::fs::write(&file, configuration(arguments, v1, v2)).map_err(system)?;
    print_what_to_try(arguments, &file);
    run::run(vec![directory.path().to_owned()], None)
}

/// Checks that a port is free before the demo prints its commands.
fn check_port(option: &str, port: u16) -> Result<(), RunError> {
    let refused = |error: io::Error| {
        RunError::System(format!(
            "error: the demo cannot listen on 127.0.0.1:{port}: {}; \
             choose another port with {option}",
            plain(&error)
        ))
    };
    TcpListener::bind(("127.0.0.1", port)).map(drop).map_err(refused)
}

/// Starts one version of the service on a free loopback port. Returns the port.
fn start_version(version: &'static str) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        let answer = move |uri: Uri| async move { format!("shop {version} says hello to {uri}\n") };
        let router = Router::new().fallback(answer);
        axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
    };
    std::thread::Builder::new().name(format!("shop-{version}")).spawn(move || {
        if let Err(error) = runtime.block_on(serve) {
            tracing::error!(
                error = %plain(&error), version,
                "the demo service has stopped; its requests fail"
            );
        }
    })?;
    Ok(port)
}

fn configuration(arguments: &DemoArgs, v1: u16, v2: u16) -> String {
    let DemoArgs { port, admin_port } = arguments;
    format!(
        "# The demo's configuration. Change it while the demo runs: it is applied at once.
listeners:
  web:
    bind: 127.0.0.1:{port}
routes:
  \"*\":
    - name: canary
      match: {{headers: {{x-canary: \"true\"}}}}
      to: shop/v2
    - name: everyone
      to: {{shop/v1: 90, shop/v2: 10}}
services:
  shop:
    versions:
      v1: [127.0.0.1:{v1}]
      v2: [127.0.0.1:{v2}]
admin:
  bind: 127.0.0.1:{admin_port}
runtime:
  workers: 1
"
    )
}

fn print_what_to_try(arguments: &DemoArgs, file: &Path) {
    let DemoArgs { port, admin_port } = arguments;
    let file = file.display();
    let text = format!(
        "A shop in two versions is running behind ringway on http://127.0.0.1:{port}

Try:
  curl http://127.0.0.1:{port}/                        # v1
  curl http://127.0.0.1:{port}/ -H 'x-canary: true'    # v2: the canary's rule
  for i in $(seq 10); do curl -s http://127.0.0.1:{port}/; done
                                                       # exactly one of ten is v2
Look:
  curl http://127.0.0.1:{admin_port}/services          # endpoints and their loads
  curl http://127.0.0.1:{admin_port}/metrics           # metrics for Prometheus
Change the weights in this file and run curl again. Then write a mistake into it and read the log:
  {file}
Press Ctrl-C to stop.

"
    );
    // Ignore the error of a closed pipe (`| head`), so that the demo continues.
    io::stdout().write_all(text.as_bytes()).ok();
}
