//! Clients that check every byte they get.

use std::rc::Rc;
use std::time::Duration;

use ringway::runtime::sim::SimIo;

use super::plan::{ClientFault, EndpointFault, Framing, Plan, Service};
use super::wire::{Cut, Reader, Wire, beside};
use super::world::World;

/// How often the proxy repeats a request that no endpoint has processed.
const REPEATS_MAX: usize = 2;

/// A client: some connections, one after the other, and some batches of requests on each.
pub async fn run(world: Rc<World>, io: SimIo) {
    for _ in 0..world.random(|random| random.u8(1..4)) {
        // A listener and captured connections.
        let (at, service) = [
            ("10.0.0.1:80", None),
            ("10.0.0.1:81", Some(Service::Http1)),
            ("10.0.0.1:82", Some(Service::Http2)),
        ][world.random(|random| random.usize(..3))];
        let Ok(mut wire) = Wire::connect(&io, at).await else {
            assert!(world.refuses(), "the proxy takes no connection");
            continue;
        };
        for _ in 0..world.random(|random| random.u8(1..5)) {
            if !wire.is_quiet() || !batch(&world, &io, &mut wire, service).await {
                break;
            }
            let pause = match world.random(|random| random.u8(..6)) {
                // Avoid times at which both sides could time out at the same moment.
                0 => Duration::from_secs(world.random(|random| [5, 12, 25, 40][random.usize(..4)])),
                1..=3 => Duration::from_millis(world.random(|random| random.u64(..1500))),
                _ => Duration::ZERO,
            };
            io.sleep(pause).await;
        }
    }
}

/// Sends requests without waiting for their answers. Returns whether the connection may be used
/// again.
async fn batch(world: &World, io: &SimIo, wire: &mut Wire, service: Option<Service>) -> bool {
    let count = if world.random(|random| random.bool()) { 1 } else { 3 };
    let mut plans: Vec<Plan> = (0..count).map(|_| world.new_plan(service)).collect();
    // After a request that the client cuts off, it cannot send another request.
    if let Some(cut) = plans.iter().position(|plan| plan.client_fault.is_some()) {
        plans.truncate(cut + 1);
    }
    let mut bytes: Vec<u8> = plans.iter().flat_map(Plan::request_bytes).collect();
    let fault = plans.last().and_then(|plan| plan.client_fault);
    if fault == Some(ClientFault::Aborts) {
        let n = world.random(|random| random.usize(..bytes.len()));
        bytes.truncate(n);
    }
    let slow = world.random(|random| random.u8(..8)) == 0;
    let (sender, mut reader) = wire.split();
    let send = async {
        for part in bytes.chunks(if slow { bytes.len() / 4 + 1 } else { bytes.len().max(1) }) {
            if sender.send(part).await.is_err() {
                return;
            }
            if slow {
                io.sleep(Duration::from_millis(700)).await;
            }
        }
        if fault == Some(ClientFault::Aborts) {
            // Wait until some of the sent bytes have had an effect.
            io.sleep(Duration::from_millis(20)).await;
        }
    };
    if fault == Some(ClientFault::Aborts) {
        send.await;
        wire.reset_on_close();
        return false;
    }
    let receive = async {
        for plan in &plans {
            if slow {
                io.sleep(Duration::from_millis(900)).await;
            }
            match answer(world, io, &mut reader, plan).await {
                Verdict::Next => {}
                Verdict::Over => return false,
            }
        }
        true
    };
    beside(receive, send).await
}

enum Verdict {
    Next,
    Over,
}

/// Reads one answer and checks it.
async fn answer(world: &World, io: &SimIo, reader: &mut Reader<'_>, plan: &Plan) -> Verdict {
    let blameless = world.calm && plan.endpoint_fault.is_none() && plan.client_fault.is_none();
    if reader.first_byte().await.is_err() {
        // Only a draining proxy may drop a request, and only a request that it has not begun to
        // serve.
        assert!(!blameless || world.drains(), "dropped without a word: {plan:?}");
        world.tally(|tally| tally.broken += 1);
        return Verdict::Over;
    }
    let Ok(answer) = response(reader, plan).await else {
        assert!(!blameless, "cut off: {plan:?}");
        world.tally(|tally| tally.broken += 1);
        return Verdict::Over;
    };
    if answer.from_endpoint {
        judge_endpoints(plan, &answer);
        world.note(io, plan.id, answer.body.len());
        world.answered(Service::Http1, plan);
    } else {
        judge_proxys(world, plan, &answer, blameless);
        world.note(io, plan.id, answer.status);
        world.tally(|tally| tally.refused += 1);
    }
    if !answer.closes {
        return Verdict::Next;
    }
    // If the request was never complete, the proxy may not know that it was a HEAD.
    let untold = plan.method == "HEAD" && answer.status == 408;
    let (rest, _) = reader.rest().await;
    assert!(rest.is_empty() || untold, "bytes after the last answer: {plan:?}");
    Verdict::Over
}

/// Checks an answer of the endpoint: every byte must be the same.
pub fn judge_endpoints(plan: &Plan, answer: &Answer) {
    assert_eq!(answer.status, plan.status, "{plan:?}");
    let wanted = plan.response_body();
    assert!(wanted.starts_with(&answer.body), "other bytes: {plan:?}");
    // Without a length, a response that the endpoint cut short looks complete.
    let unknowable = plan.service == Service::Http1
        && plan.response.0 == Framing::UntilClose
        && matches!(plan.endpoint_fault, Some(EndpointFault::Truncates { .. }));
    let (got, all) = (answer.body.len(), wanted.len());
    assert!(got == all || unknowable, "{got} bytes of {all} look whole: {plan:?}");
}

/// Checks an answer that the proxy made itself. Such an answer is allowed only after a fault.
pub fn judge_proxys(world: &World, plan: &Plan, answer: &Answer, blameless: bool) {
    let (status, why) = (answer.status, String::from_utf8_lossy(&answer.body));
    assert!([408, 502, 503, 504].contains(&status), "{status} ({why}): {plan:?}");
    // A pooled connection that has just closed: this request must not or cannot be repeated.
    let once = !plan.idempotent() || plan.request.is_some();
    let unlucky = once && status == 502 && plan.service == Service::Http1;
    // Endpoints did not process the request too often, or its body cannot be sent again.
    let untold = plan.method == "HEAD"; // its answer has no body with the reason
    let unprocessed = status == 503 && (untold || why == "the endpoint did not accept the request");
    // A GOAWAY may cross the request. Then the endpoint never sees the refused attempt.
    let crossed = usize::from(world.farewells() > 0);
    let spent = plan.request.is_some() || world.refusals(plan) + crossed > REPEATS_MAX;
    let unlucky = unlucky || (unprocessed && spent);
    assert!(!blameless || unlucky, "refused with {status} ({why}): {plan:?}");
}

pub struct Answer {
    pub status: u16,
    pub from_endpoint: bool,
    pub body: Vec<u8>,
    pub closes: bool,
}

async fn response(reader: &mut Reader<'_>, plan: &Plan) -> Result<Answer, Cut> {
    loop {
        let head = reader.head().await?;
        let status = head.status();
        if status < 200 {
            continue;
        }
        let own = head.field("x-id");
        if let Some(own) = own {
            assert_eq!(own, plan.id.to_string(), "another request's answer");
        }
        if plan.client_fault == Some(ClientFault::Leaves) {
            return Err(Cut::Reset);
        }
        let has_body = plan.method != "HEAD" && status != 204;
        let body = if has_body { reader.body(&head, true).await? } else { Vec::new() };
        return Ok(Answer { status, from_endpoint: own.is_some(), body, closes: head.closes() });
    }
}
