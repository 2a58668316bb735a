//! HTTP/2 endpoints that answer in any order, with the planned faults.

use std::rc::Rc;
use std::time::Duration;

use ringway::runtime::io::Io;
use ringway::runtime::sim::{SimIo, SimStream};

use super::super::plan::{EndpointFault, Framing, Plan, Role};
use super::super::wire::accept;
use super::super::world::World;
use super::Terms;
use super::frame::{self, code, flag, kind};
use super::hpack::Fields;
use super::peer::Peer;
use super::state::{Lost, block_of, field};

/// Accepts connections at `at` while the world exists.
pub fn start(world: &Rc<World>, io: &SimIo, at: &str, role: Role) {
    let (world, inner) = (Rc::clone(world), io.clone());
    accept(io, at, move |stream| serve(Rc::clone(&world), inner.clone(), stream, role));
}

async fn serve(world: Rc<World>, io: SimIo, stream: SimStream, role: Role) {
    let peer = Peer::server(&world, &io, stream, Terms::any(&world));
    // The number of streams after which the endpoint closes the connection, sometimes without
    // GOAWAY.
    let streams = world.random(|random| if random.bool() { random.u32(1..12) } else { 1000 });
    let mut served = 0;
    while let Some(id) = peer.accept().await {
        served += 1;
        let (serving, shared) = (Rc::clone(&peer), Rc::clone(&world));
        io.spawn(async move {
            if let Err(lost) = exchange(&shared, &serving, id, role).await {
                shared.note(&serving.io, serving.name(), (id, lost));
            }
        });
        match world.random(|random| random.u8(..12)) {
            0 => peer.announce(Terms::any(&world)),
            1 => peer.push(frame::ping(0)),
            _ => {}
        }
        if served == streams {
            io.spawn(leave(Rc::clone(&world), Rc::clone(&peer)));
        }
    }
    peer.settle().await;
    peer.close();
}

/// Sends GOAWAY twice (RFC 9113 6.8), or once: then running streams are reported as unprocessed.
async fn leave(world: Rc<World>, peer: Rc<Peer>) {
    world.tally(|tally| tally.farewells += 1);
    if world.random(|random| random.u8(..3)) > 0 {
        peer.leave(true, code::NO_ERROR);
        peer.ping().await;
    }
    peer.leave(false, code::NO_ERROR);
}

/// Serves one stream. Streams after a GOAWAY do not come here.
async fn exchange(world: &World, peer: &Peer, id: u32, role: Role) -> Result<(), Lost> {
    let head = peer.head(id).await?;
    let path = field(&head, ":path").unwrap();
    let plan = world.plan_of(path);
    assert_eq!(field(&head, ":method"), Some(plan.method), "{path}");
    assert_eq!(field(&head, ":authority"), Some(role.host()));
    assert_eq!(field(&head, ":scheme"), Some("http"));
    assert!(field(&head, "x-request-id").is_some());
    world.note(&peer.io, peer.name(), (id, path));
    if role == Role::Service && world.refuse(&plan) {
        peer.reset(id, code::REFUSED_STREAM);
        return Ok(());
    }
    world.see(&plan, role);
    let early = matches!(plan.endpoint_fault, Some(EndpointFault::Early { .. }));
    if !early {
        read_body(world, peer, id, &plan, &head).await?;
    }
    peer.io.sleep(plan.thinks).await;
    match plan.endpoint_fault {
        None => answer(peer, id, &plan, usize::MAX, Duration::ZERO).await,
        Some(EndpointFault::Silent) => end(world, peer, id, world.random(fastrand::Rng::bool)),
        Some(EndpointFault::Truncates { reset }) => {
            let n = world.random(|random| random.usize(..=plan.response_body().len()));
            answer(peer, id, &plan, n, Duration::ZERO).await?;
            end(world, peer, id, reset)
        }
        Some(EndpointFault::Garbage) => {
            garbage(world, peer, id);
            peer.io.sleep(Duration::from_secs(2)).await;
            Ok(())
        }
        Some(EndpointFault::Stalls) => {
            let stall = Duration::from_secs(300);
            answer(peer, id, &plan, usize::MAX, stall).await
        }
        Some(EndpointFault::Early { reads }) => {
            answer(peer, id, &plan, usize::MAX, Duration::ZERO).await?;
            if reads {
                return read_body(world, peer, id, &plan, &head).await;
            }
            peer.reset(id, code::NO_ERROR);
            Ok(())
        }
    }
}

/// Ends a stream or its connection in the middle of the answer.
fn end(world: &World, peer: &Peer, id: u32, reset: bool) -> Result<(), Lost> {
    match reset || world.random(|random| random.u8(..4)) > 0 {
        true => peer.reset(id, code::INTERNAL_ERROR),
        false => peer.abort(),
    }
    Ok(())
}

/// Sends frames that no endpoint may send.
fn garbage(world: &World, peer: &Peer, id: u32) {
    let head = |name: &str, value: &str| {
        let block = block_of(&vec![(name.to_owned(), value.to_owned())]);
        frame::frame(kind::HEADERS, flag::END_HEADERS, id, &block)
    };
    let bytes = match world.random(|random| random.u8(..8)) {
        0 => b"\x16\x03\x01 this is not HTTP/2".to_vec(),
        1 => frame::data(0, b"of no stream", false, None),
        2 => frame::data(id, b"without a head", true, None),
        3 => frame::frame(kind::HEADERS, flag::END_HEADERS, id, b"\xff\xff\xff\x0f"),
        4 => head("x-id", "1"),
        5 => head(":status", "20"),
        6 => frame::frame(kind::WINDOW_UPDATE, 0, id, &[0; 4]),
        _ => frame::reset(id + 100, code::CANCEL),
    };
    peer.push(bytes);
}

/// Sends `cut` bytes of the body, and the end of the stream if these are the whole body. Waits for
/// `stall` after half of them.
async fn answer(
    peer: &Peer,
    id: u32,
    plan: &Plan,
    cut: usize,
    stall: Duration,
) -> Result<(), Lost> {
    let named = |name: &str, value: String| (name.to_owned(), value);
    if plan.interim {
        let hints = vec![named(":status", "103".to_owned()), named("link", "</x>".to_owned())];
        peer.headers(id, &hints, false).await?;
    }
    let (body, by_length) = (plan.response_body(), plan.response.0 == Framing::Length);
    let whole = cut == usize::MAX;
    let trailers = plan.trailers && plan.response.0 == Framing::Chunked && plan.answers_body();
    let mut fields =
        vec![named(":status", plan.status.to_string()), named("x-id", plan.id.to_string())];
    if by_length && plan.status != 204 {
        fields.push(named("content-length", plan.response.1.to_string()));
    }
    let bare = body.is_empty() && !trailers && plan.id.is_multiple_of(2);
    peer.headers(id, &fields, bare && whole).await?;
    if bare && whole {
        return Ok(());
    }
    let (first, rest) = body[..cut.min(body.len())].split_at(cut.min(body.len()) / 2);
    peer.data(id, first, false).await?;
    peer.io.sleep(stall).await;
    peer.data(id, rest, whole && !trailers).await?;
    if whole && trailers {
        peer.headers(id, &vec![named("x-sum", "1".to_owned())], true).await?;
    }
    Ok(())
}

async fn read_body(
    world: &World,
    peer: &Peer,
    id: u32,
    plan: &Plan,
    head: &Fields,
) -> Result<(), Lost> {
    let early = matches!(plan.endpoint_fault, Some(EndpointFault::Early { .. }));
    if !early && field(head, "expect").is_some() && plan.id.is_multiple_of(2) {
        peer.headers(id, &vec![(":status".to_owned(), "100".to_owned())], false).await?;
    }
    let slow = world.random(|random| random.u8(..10)) == 0;
    let wanted = plan.request_body();
    // The pauses take 12 s: a large body in a small window arrives before the timeout.
    let mut pauses = if slow { 40 } else { 0 };
    let mut body = Vec::new();
    loop {
        let data = peer.body(id).await?;
        if data.is_empty() {
            break;
        }
        body.extend(data);
        assert!(wanted.starts_with(&body), "request {} came with another body", plan.id);
        if pauses > 0 {
            pauses -= 1;
            peer.io.sleep(Duration::from_millis(300)).await;
        }
    }
    assert_eq!(body.len(), wanted.len(), "request {} looks whole and is not", plan.id);
    Ok(())
}
