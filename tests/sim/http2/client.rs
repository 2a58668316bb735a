//! HTTP/2 clients with some streams at a time on each connection. Each stream is checked like an
//! HTTP/1.1 request.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringway::net::Egress;
use ringway::runtime::io::Io;
use ringway::runtime::sim::SimIo;

use super::super::client::{Answer, judge_endpoints, judge_proxys};
use super::super::plan::{ClientFault, Plan, Service};
use super::super::wire::{address, beside};
use super::super::world::World;
use super::Terms;
use super::frame::{self, code};
use super::hpack::Fields;
use super::peer::Peer;
use super::state::{Lost, field};

/// If a stream has no result within this virtual time, the test fails.
const PATIENCE: Duration = Duration::from_secs(900);

/// The longest time of a stream without faults. It is shorter than the time after which the proxy
/// gives up a stalled stream next to it.
const CALM_PATIENCE: Duration = Duration::from_secs(7);

/// A client: some connections, one after the other, and some batches of streams on each.
pub async fn run(world: Rc<World>, io: SimIo) {
    for _ in 0..world.random(|random| random.u8(1..4)) {
        // A listener and a captured connection. (A captured HTTP/2 connection to an HTTP/1.1
        // service would be forwarded as bytes.)
        let ports = [("10.0.0.1:80", None), ("10.0.0.1:82", Some(Service::Http2))];
        let (at, service) = ports[world.random(|random| random.usize(..2))];
        let Ok(stream) = io.connect(&address(at), Egress::default()).await else {
            assert!(world.refuses(), "the proxy takes no connection");
            continue;
        };
        let peer = Peer::client(&world, &io, stream, Terms::any(&world));
        for _ in 0..world.random(|random| random.u8(1..4)) {
            batch(&world, &peer, service).await;
            if peer.is_over() {
                break;
            }
            disturb(&world, &peer);
            let pause = match world.random(|random| random.u8(..6)) {
                0 => Duration::from_secs(world.random(|random| [5, 12, 25][random.usize(..3)])),
                1..=3 => Duration::from_millis(world.random(|random| random.u64(..1500))),
                _ => Duration::ZERO,
            };
            io.sleep(pause).await;
        }
        peer.close();
    }
}

/// Sends a random frame that a client may send.
fn disturb(world: &World, peer: &Peer) {
    match world.random(|random| random.u8(..8)) {
        0 => peer.announce(Terms::any(world)),
        1 => peer.push(frame::ping(0)),
        2 => peer.push(frame::frame(frame::kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 7])),
        3 => peer.push(frame::frame(0xbb, 0, 0, b"grease")),
        _ => {}
    }
}

/// Runs streams that are opened at about the same time.
async fn batch(world: &Rc<World>, peer: &Rc<Peer>, service: Option<Service>) {
    let running = Rc::new(Cell::new(0));
    for _ in 0..world.random(|random| random.u8(1..9)) {
        running.set(running.get() + 1);
        let (world, peer, running) = (Rc::clone(world), Rc::clone(peer), Rc::clone(&running));
        let io = peer.io.clone();
        io.spawn(async move {
            pause(&world, &peer, 3_000).await;
            let late = async {
                peer.io.sleep(PATIENCE).await;
                panic!("a stream waits for ever");
            };
            beside(stream(&world, &peer, service), late).await;
            running.set(running.get() - 1);
        });
    }
    while running.get() > 0 {
        peer.io.sleep(Duration::from_millis(20)).await;
    }
}

async fn pause(world: &World, peer: &Peer, up_to_us: u64) {
    let us = world.random(|random| if random.bool() { random.u64(..up_to_us) } else { 0 });
    peer.io.sleep(Duration::from_micros(us)).await;
}

/// How a client reads an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pace {
    Full,
    Slow,
    /// It stops in the middle of the answer, for longer than all timeouts.
    Stops,
}

/// Sends one request and checks its result.
async fn stream(world: &World, peer: &Peer, service: Option<Service>) {
    let plan = world.new_plan(service);
    let pace = match world.random(|random| random.u8(..16)) {
        0 => Pace::Stops,
        1 | 2 => Pace::Slow,
        _ => Pace::Full,
    };
    let body = plan.request_body();
    let ends = plan.request.is_none();
    // A stream that could not be opened sent no request.
    let Some(id) = peer.open(&plan.request_fields(), ends).await else { return };
    let began = peer.io.now();
    world.note(&peer.io, peer.name(), (id, plan.path(), pace));
    if plan.client_fault == Some(ClientFault::Aborts) {
        let n = world.random(|random| random.usize(..=body.len()));
        if !ends && n > 0 {
            peer.data(id, &body[..n], false).await.ok();
        }
        pause(world, peer, 20_000).await;
        match world.random(|random| random.u8(..4)) {
            0 => peer.abort(),
            _ => peer.reset(id, code::CANCEL),
        }
        return;
    }
    let upload = async {
        if !ends {
            pause(world, peer, 3_000).await;
            send_body(world, peer, id, &plan, &body).await.ok();
        }
    };
    let result = beside(receive(peer, id, &plan, pace), upload).await;
    // Reset an unfinished stream, for example if the answer came before the request was complete.
    peer.reset(id, code::CANCEL);
    judge(world, peer, &plan, pace, result);
    let alone = world.calm && plan.request.is_none() && pace == Pace::Full && !world.drains();
    let took = peer.io.now() - began;
    assert!(!alone || took < CALM_PATIENCE, "{took:?} for {plan:?}");
}

async fn send_body(
    world: &World,
    peer: &Peer,
    id: u32,
    plan: &Plan,
    body: &[u8],
) -> Result<(), Lost> {
    let trailers = plan.request_trailers();
    let slow = world.random(|random| random.u8(..8)) == 0;
    for part in body.chunks(if slow { body.len() / 4 + 1 } else { body.len().max(1) }) {
        peer.data(id, part, false).await?;
        if slow {
            peer.io.sleep(Duration::from_millis(700)).await;
        }
    }
    match trailers.is_empty() {
        true => peer.data(id, b"", true).await,
        false => peer.headers(id, &trailers, true).await,
    }
}

async fn receive(peer: &Peer, id: u32, plan: &Plan, pace: Pace) -> Result<Answer, Lost> {
    let head = loop {
        let head = peer.head(id).await?;
        if !field(&head, ":status").unwrap().starts_with('1') {
            break head;
        }
    };
    let own = field(&head, "x-id");
    if let Some(own) = own {
        assert_eq!(own, plan.id.to_string(), "another request's answer");
    }
    if plan.client_fault == Some(ClientFault::Leaves) {
        return Err(Lost::Over);
    }
    let mut body = Vec::new();
    loop {
        match pace {
            Pace::Full => {}
            Pace::Slow => peer.io.sleep(Duration::from_millis(300)).await,
            Pace::Stops => peer.io.sleep(Duration::from_secs(20)).await,
        }
        let data = peer.body(id).await?;
        if data.is_empty() {
            break;
        }
        body.extend(data);
    }
    let status = field(&head, ":status").unwrap().parse().expect("a status");
    if own.is_some() && plan.method != "HEAD" {
        let length = field(&head, "content-length").map(|length| length.parse::<usize>().unwrap());
        assert!(length.is_none_or(|length| length == body.len()), "another length: {plan:?}");
    }
    Ok(Answer { status, from_endpoint: own.is_some(), body, closes: false })
}

/// Checks that the result of a stream is as planned.
fn judge(world: &World, peer: &Peer, plan: &Plan, pace: Pace, result: Result<Answer, Lost>) {
    let faultless = plan.endpoint_fault.is_none() && plan.client_fault.is_none();
    let blameless = world.calm && faultless && pace != Pace::Stops;
    match result {
        Ok(answer) if answer.from_endpoint => {
            judge_endpoints(plan, &answer);
            world.note(&peer.io, plan.id, answer.body.len());
            world.answered(Service::Http2, plan);
        }
        Ok(answer) => {
            judge_proxys(world, plan, &answer, blameless);
            world.note(&peer.io, plan.id, answer.status);
            world.tally(|tally| tally.refused += 1);
        }
        Err(lost) => {
            assert!(!blameless || world.drains(), "{lost:?}: {plan:?}");
            world.note(&peer.io, plan.id, lost);
            world.tally(|tally| tally.lost += 1);
        }
    }
}

impl Plan {
    /// The head of the request.
    fn request_fields(&self) -> Fields {
        let mut fields = vec![
            (":method".to_owned(), self.method.to_owned()),
            (":scheme".to_owned(), "http".to_owned()),
            (":authority".to_owned(), "sim".to_owned()),
            (":path".to_owned(), self.path()),
        ];
        if self.expect {
            fields.push(("expect".to_owned(), "100-continue".to_owned()));
        }
        if let Some(length) = self.request_length() {
            fields.push(("content-length".to_owned(), length.to_string()));
        }
        fields
    }

    fn request_trailers(&self) -> Fields {
        let chunked = self.request.is_some() && self.request_length().is_none();
        if self.trailers && chunked { vec![("x-sum".to_owned(), "1".to_owned())] } else { vec![] }
    }
}
