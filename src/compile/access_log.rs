//! Compiles the access log.

use std::sync::Arc;

use super::{Compiler, collector, habits, suggestion};
use crate::model::{self, Item};
use crate::observe::otlp_lines::HTTP_PATH;
use crate::observe::{Filter, Format, TextError};
use crate::snapshot::{AccessLog, LogFilter, LogLines, LogSink};

/// The number of characters of a text that a message about its middle shows.
const SHOWN: usize = 24;

/// The filters that are a word.
const FILTERS: [&str; 3] = ["all", "failed", "none"];

/// The formats that are a word.
const FORMATS: [&str; 3] = ["json", "envoy", "istio"];

/// Compiles the access log. If no target is configured, failed exchanges go to standard error. If a
/// target is configured, all exchanges go there by default.
pub(super) fn access_log(compiler: &mut Compiler<'_>) -> Option<AccessLog> {
    let log = &compiler.model.settings.access_log;
    let has_target = log.sink.is_some() || log.otlp.is_some();
    let filter = match (log.filter.as_ref().map(|filter| filter.value.as_str()), has_target) {
        (Some("none"), _) => None,
        (Some("all"), _) | (None, true) => Some(LogFilter::All),
        (Some("failed"), _) | (None, false) => Some(LogFilter::Failed),
        (Some(_), _) => filter(compiler, log.filter.as_ref()?),
    };
    let sink = match &log.sink {
        Some(model::LogSink::Stdout) => LogSink::Stdout,
        Some(model::LogSink::Stderr) | None => LogSink::Stderr,
        Some(model::LogSink::File(path)) => LogSink::File(path.clone()),
        Some(model::LogSink::Syslog(path)) => LogSink::Syslog(path.clone()),
    };
    let sink = otlp(compiler, log).unwrap_or(sink);
    let format = format(compiler, log);
    if let (Some(sample), Some(LogFilter::Failed)) = (&log.sample, &filter) {
        let message = "`sample` has no effect: the log has only failed requests";
        let help = "leave it out, or write `filter: all`; failed requests are always in the log";
        compiler.warn(&sample.origin, message, help);
    }
    let filter = filter?;
    let mut wanted = format.wanted();
    if let LogFilter::Only(filter) = &filter {
        wanted.extend(&filter.wanted());
    }
    let lines =
        LogLines { format, filter, sample: log.sample.as_ref().map(|share| share.value), wanted };
    Some(AccessLog { sink, lines: Arc::new(lines) })
}

/// The collector that gets the lines. `None` if none is written, or after an error.
fn otlp<'a>(compiler: &mut Compiler<'a>, log: &'a model::AccessLog) -> Option<LogSink> {
    let Some(url) = &log.otlp else {
        let alone =
            [log.ca.as_ref().map(|it| &it.origin), log.service.as_ref().map(|it| &it.origin)];
        for origin in alone.into_iter().flatten() {
            let help = "add `otlp: https://HOST:PORT`, or leave this out";
            compiler.fault_with_help(origin, "this is for a collector, and there is none", help);
        }
        return None;
    };
    if log.sink.is_some() {
        let message = "the lines go either to `path` or to a collector";
        compiler.fault_with_help(&url.origin, message, "keep one of `path` and `otlp`");
    }
    let traces = compiler.model.settings.tracing.as_ref();
    let service = log.service.as_ref().map(|service| service.value.as_str());
    let service = service.or_else(|| traces?.service.as_deref());
    collector::export(compiler, url, log.ca.as_ref(), service, HTTP_PATH).map(LogSink::Otlp)
}

fn filter(compiler: &mut Compiler<'_>, filter: &Item<String>) -> Option<LogFilter> {
    match Filter::parse(&filter.value) {
        Ok(filter) => Some(LogFilter::Only(filter)),
        Err(_) if is_word(&filter.value, &FILTERS) => {
            unknown(compiler, filter, &FILTERS);
            None
        }
        Err(error) => {
            wrong(compiler, filter, error);
            None
        }
    }
}

fn format(compiler: &mut Compiler<'_>, log: &model::AccessLog) -> Format {
    if let (Some(format), [_, ..]) = (&log.format, &*log.fields)
        && format.value != "json"
    {
        let message = "`fields` are the values of a JSON line, and `format` is not json";
        compiler.fault_with_help(&format.origin, message, "keep one of them");
        return Format::JSON;
    }
    if !log.fields.is_empty() {
        let names = log.fields.iter().map(|name| name.value.as_str());
        return Format::chosen(names).unwrap_or_else(|(index, error)| {
            wrong(compiler, &log.fields[index], error);
            Format::JSON
        });
    }
    let Some(format) = &log.format else { return Format::JSON };
    Format::parse(&format.value).unwrap_or_else(|error| {
        match is_word(&format.value, &FORMATS) {
            true => unknown(compiler, format, &FORMATS),
            false => wrong(compiler, format, error),
        }
        Format::JSON
    })
}

/// Whether `text` is a single word of another proxy, or nearly one of `known`.
fn is_word(text: &str, known: &[&str]) -> bool {
    habits::of_value(text, known).is_some() || suggestion::is_near(text, known)
}

fn unknown(compiler: &mut Compiler<'_>, word: &Item<String>, known: &[&str]) {
    let message = format!("unknown value {:?}", word.value);
    let help = suggestion::value_suggestion(&word.value, known);
    compiler.fault_with_help(&word.origin, message, help);
}

/// Reports a mistake in `text`. A mistake in its middle also shows the rest of it.
pub(super) fn wrong(compiler: &mut Compiler<'_>, text: &Item<String>, error: TextError) {
    let TextError { at, message, help } = error;
    let rest = text.value.get(at..).filter(|rest| at > 0 && !rest.is_empty());
    let rest = rest.filter(|rest| !message.contains(rest));
    let message = match rest {
        Some(rest) if rest.chars().count() > SHOWN => {
            let shown: String = rest.chars().take(SHOWN).collect();
            format!("{message}, at {shown:?} ...")
        }
        Some(rest) => format!("{message}, at {rest:?}"),
        None => message,
    };
    compiler.fault_with_help(&text.origin, message, help);
}
