//! Compiles the faults that rules inject.

use super::suggestion::value_suggestion;
use super::{Compiler, is_token};
use crate::grpc::Code;
use crate::model::{self, InjectedFault, Item};
use crate::resilience::{Abort, Bandwidth, Chance, FaultPolicy};
use crate::route::Fault;

/// The advice if a part of a fault is missing.
const HELP: &str =
    "write `fault: {delay: {duration: 2s, percent: 5}, abort: {status: 503, percent: 1}}`";

/// Compiles the faults of a rule. `forwards` is whether the action of the rule is to forward
/// requests.
pub(super) fn fault(
    compiler: &mut Compiler<'_>,
    written: &Item<InjectedFault>,
    forwards: bool,
) -> Box<Fault> {
    let value = &written.value;
    if !forwards {
        compiler.fault(&written.origin, "only a rule with `to` can inject faults");
    } else if value.delay.is_none() && value.abort.is_none() && value.bandwidth.is_none() {
        let message = "this fault has no delay, no abort and no bandwidth";
        compiler.missing(&written.origin, message, HELP);
    }
    for (name, _) in &value.headers {
        if !is_token(&name.value) {
            compiler.fault(&name.origin, format!("{:?} is not the name of a field", name.value));
        }
    }
    let headers = value.headers.iter();
    let headers = headers.map(|(name, value)| (name.value.as_str().into(), value.clone()));
    let headers = headers.collect();
    let delay = value.delay.as_ref().and_then(|delay| self::delay(compiler, delay));
    let abort = value.abort.as_ref().and_then(|abort| self::abort(compiler, abort));
    let bandwidth = value.bandwidth.as_ref();
    let bandwidth = bandwidth.and_then(|bandwidth| self::bandwidth(compiler, bandwidth));
    Box::new(Fault { headers, policy: FaultPolicy { delay, abort, bandwidth } })
}

/// The probability that a request gets the fault. `None` means all requests.
pub(super) fn chance(share: Option<u32>) -> Chance {
    share.map_or(Chance::ALWAYS, Chance::of_parts)
}

fn delay(
    compiler: &mut Compiler<'_>,
    written: &Item<model::Delay>,
) -> Option<(std::time::Duration, Chance)> {
    let model::Delay { duration, share } = written.value;
    if duration.is_none() {
        let help = "write `delay: {duration: 2s, percent: 5}`";
        compiler.missing(&written.origin, "this delay has no duration", help);
    }
    Some((duration?, chance(share)))
}

fn bandwidth(
    compiler: &mut Compiler<'_>,
    written: &Item<model::Bandwidth>,
) -> Option<(Bandwidth, Chance)> {
    let model::Bandwidth { bytes_per_second, share } = &written.value;
    let help = "write `bandwidth: {bytes_per_second: 100KiB, percent: 5}`";
    let Some(bytes) = bytes_per_second else {
        compiler.missing(&written.origin, "this bandwidth has no limit", help);
        return None;
    };
    if bytes.value == 0 {
        compiler.fault_with_help(&bytes.origin, "a bandwidth of 0 would end no response", help);
    }
    let limit = u32::try_from(bytes.value).unwrap_or(u32::MAX);
    Some((Bandwidth(limit), chance(*share)))
}

fn abort(compiler: &mut Compiler<'_>, written: &Item<model::Abort>) -> Option<(Abort, Chance)> {
    let model::Abort { status, grpc_status, share } = &written.value;
    let abort = match (status, grpc_status) {
        (Some(status), None) => {
            if !(200..=599).contains(&status.value) {
                compiler.fault(&status.origin, "a status is between 200 and 599");
            }
            Abort::Status(status.value)
        }
        (None, Some(name)) => Abort::Code(code(compiler, name)?),
        (Some(_), Some(name)) => {
            let message = "an abort has either `status` or `grpc_status`, and not both";
            let help = "keep one of them: each kind of request gets the status that belongs to it";
            compiler.fault_with_help(&name.origin, message, help);
            return None;
        }
        (None, None) => {
            let help = "write `abort: {status: 503, percent: 1}`";
            compiler.missing(&written.origin, "this abort has no status", help);
            return None;
        }
    };
    Some((abort, chance(*share)))
}

fn code(compiler: &mut Compiler<'_>, name: &Item<String>) -> Option<Code> {
    match Code::parse(&name.value) {
        Some(Code::OK) => {
            let help = "name an error, such as UNAVAILABLE";
            compiler.fault_with_help(&name.origin, "a call that is aborted does not succeed", help);
            None
        }
        None => {
            let capitals = name.value.to_ascii_uppercase().replace(['-', ' '], "_");
            let names: Vec<_> = Code::names().skip(1).collect();
            let help = match Code::parse(&capitals) {
                Some(code) => format!("write {}", code.name()),
                None => value_suggestion(&capitals, &names),
            };
            let message = format!("{:?} is not a gRPC status", name.value);
            compiler.fault_with_help(&name.origin, message, help);
            None
        }
        code => code,
    }
}
