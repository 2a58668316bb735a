//! `ringway tap`: shows the requests of a running proxy as they end.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{Target, client, plain, time};
use crate::observe::Filter;

/// The arguments of `ringway tap`.
#[derive(Args)]
pub struct TapArgs {
    #[command(flatten)]
    target: Target,
    /// Print whole JSON objects, with the header fields of the request and the response.
    #[arg(long)]
    json: bool,
    /// Show the value of this header field in addition to harmless ones. Secrets are never shown.
    #[arg(short = 'H', long = "header", value_name = "NAME")]
    headers: Vec<String>,
    /// Show up to this number of bytes of each body. They may have secrets: nothing in them is
    /// redacted.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    bodies: usize,
    /// End after this number of requests.
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// The requests to show, such as 'status >= 500 or duration > 250ms'. Default: all.
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// Shows requests until the proxy or the user ends it.
pub fn tap(arguments: &TapArgs) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &TapArgs) -> Result<(), String> {
    if let Some(filter) = &arguments.filter {
        let wrong = |error: crate::observe::TextError| {
            let (at, message, help) = (error.at, error.message, error.help);
            format!("{message}\n  {filter}\n  {}^\n  = help: {help}", {
                " ".repeat(filter[..at].chars().count())
            })
        };
        Filter::parse(filter).map_err(wrong)?;
    }
    let mut path = String::from("/tap?");
    let filter = arguments.filter.iter().map(|filter| ("filter", filter));
    let headers = arguments.headers.iter().map(|name| ("header", name));
    for (key, value) in filter.chain(headers) {
        path.push_str(&format!("{key}={}&", client::escaped(value)));
    }
    if arguments.bodies > 0 {
        path.push_str(&format!("bodies={}&", arguments.bodies));
    }
    let admin = arguments.target.admin()?;
    let mut answer = client::get(&admin, path.trim_end_matches(['?', '&']))?;
    if answer.status != 200 {
        let status = answer.status;
        return Err(format!("the proxy answered {status}: {}", answer.text()?.trim_end()));
    }
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut out = std::io::stdout().lock();
    while left > 0
        && let Some(line) = answer.line()?
    {
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(dropped) = event["dropped"].as_u64() {
            eprintln!("{dropped} requests were not shown, because they came too fast");
            continue;
        }
        left -= 1;
        let text = if arguments.json { line } else { shown(&event, &arguments.headers) };
        // The reader has closed the pipe.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
}

/// One line for people, and one line for each wanted header field.
fn shown(event: &Value, headers: &[String]) -> String {
    let text = |key: &str| plain(event[key].as_str().unwrap_or_default());
    let clock = text("time");
    let clock = clock.get(11..23).unwrap_or_default();
    let (method, authority, target) = (text("method"), text("authority"), text("target"));
    let what = match method.as_str() {
        "" => text("protocol"),
        method => format!("{method} {authority}{target}"),
    };
    let to = match (event["endpoint"].as_str(), event["service"].as_str()) {
        (Some(endpoint), Some(service)) => format!(" {service} {}", plain(endpoint)),
        _ => String::new(),
    };
    let flags = match event["response_flags"].as_str() {
        Some("-") | None => String::new(),
        Some(flags) => format!(" {flags} ({})", text("detail")),
    };
    let mut line = format!(
        "{clock} {}{to} {what} {} {}{flags}\n",
        text("listener"),
        event["status"],
        time(event["duration_us"].as_u64().unwrap_or_default()),
    );
    for (key, arrow) in [("request_headers", '>'), ("response_headers", '<')] {
        for pair in event[key].as_array().into_iter().flatten() {
            let (name, value) = (pair[0].as_str().unwrap_or_default(), pair[1].as_str());
            if headers.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)) {
                let value = plain(value.unwrap_or_default());
                line.push_str(&format!("    {arrow} {}: {value}\n", plain(name)));
            }
        }
    }
    for (key, arrow) in [("request_body", '>'), ("response_body", '<')] {
        let body = match &event[key] {
            Value::String(text) => text.clone(),
            _ => match &event[format!("{key}_base64")] {
                Value::String(text) => format!("base64: {text}"),
                _ => String::new(),
            },
        };
        for part in body.lines() {
            line.push_str(&format!("    {arrow} | {}\n", plain(part)));
        }
        if event[format!("{key}_incomplete")] == true {
            line.push_str(&format!("    {arrow} (the copy ends early: no room for more)\n"));
        }
    }
    line
}
