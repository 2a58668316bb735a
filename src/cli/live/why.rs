//! `ringway why`: the story of one of the last requests of a running proxy.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{Target, client, plain, time};
use crate::cli::say;

/// The arguments of `ringway why`.
#[derive(Args)]
pub struct WhyArgs {
    #[command(flatten)]
    target: Target,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The `x-request-id` of the request. Without it: the last requests that failed or were slow.
    #[arg(value_name = "REQUEST-ID")]
    id: Option<String>,
}

/// Prints the story of a request.
pub fn why(arguments: &WhyArgs) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &WhyArgs) -> Result<(), String> {
    let admin = arguments.target.admin()?;
    let address = &admin.address;
    let path = match &arguments.id {
        Some(id) => format!("/requests/{}", client::escaped(id)),
        None => "/requests?failed=true&limit=10".to_owned(),
    };
    let answer = client::get(&admin, &path)?;
    let status = answer.status;
    let text = answer.text()?;
    if status != 200 {
        return Err(text);
    }
    if arguments.json {
        say(&format!("{text}\n"));
        return Ok(());
    }
    let strange = |_| format!("{address} is not the admin interface of Ringway");
    let stories: Vec<Value> = serde_json::from_str(&text).map_err(strange)?;
    let shown: Vec<String> = stories.iter().map(story).collect();
    say(&shown.join("\n"));
    Ok(())
}

fn story(story: &Value) -> String {
    let text = |key: &str| plain(story[key].as_str().unwrap_or_default());
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let mut out = String::new();
    let what = match story["method"].as_str() {
        None | Some("") => format!("{} connection", text("protocol")),
        Some(_) => {
            let (method, authority) = (text("method"), text("authority"));
            format!("{method} {authority}{} {}", text("target"), text("protocol"))
        }
    };
    let took = time(number(&story["duration_us"]));
    let status = number(&story["status"]);
    let status = if status == 0 { "no response".to_owned() } else { status.to_string() };
    // Writing to a String does not fail.
    writeln!(out, "{what}: {status} after {took}").ok();
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            writeln!(out, "  {key:<10} {value}").ok();
        }
    };
    put("id", text("request_id"));
    put("time", format!("{}, worker {}", text("time"), story["worker"]));
    put("client", text("client"));
    put("identity", text("identity"));
    put("listener", text("listener"));
    let rule = |key: &str| plain(story["rule"][key].as_str().unwrap_or_default());
    put(
        "rule",
        match rule("place").as_str() {
            "" => "none matched".to_owned(),
            place => format!("{} ({place})", rule("name")),
        },
    );
    put("service", text("service"));
    for policy in story["policies"].as_array().into_iter().flatten() {
        put("policy", plain(policy.as_str().unwrap_or_default()));
    }
    for (index, attempt) in story["attempts"].as_array().into_iter().flatten().enumerate() {
        let (began, ended) = (number(&attempt["began_us"]), number(&attempt["ended_us"]));
        let endpoint = attempt["endpoint"].as_str().map_or_else(|| "no endpoint".to_owned(), plain);
        let mut result = plain(attempt["result"].as_str().unwrap_or_default());
        if let Some(status) = attempt["status"].as_u64() {
            result = format!("{status}: {result}");
        }
        if let Some(response) = attempt["response_us"].as_u64() {
            result.push_str(&format!(", its head at {}", time(response)));
        }
        let times = format!("from {} to {}", time(began), time(ended));
        put(&format!("attempt {}", index + 1), format!("{endpoint} {times}: {result}"));
    }
    let bytes = (number(&story["received_bytes"]), number(&story["sent_bytes"]));
    put("bytes", format!("{} from the client, {} to the client", bytes.0, bytes.1));
    let flag = match story["flag"].as_str() {
        Some(flag) => format!(" ({flag}: {})", text("detail")),
        None => String::new(),
    };
    put("end", format!("{}{flag}", text("ended_by")));
    out
}
