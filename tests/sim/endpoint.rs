//! The service behind the proxy. Each request that it gets must be exactly one that a client has
//! sent.

use std::rc::Rc;
use std::time::Duration;

use ringway::runtime::sim::{SimIo, SimStream};

use super::plan::{EndpointFault, Plan, Role};
use super::wire::{Cut, Wire, accept};
use super::world::World;

/// Accepts connections at `at` while the world exists.
pub fn start(world: &Rc<World>, io: &SimIo, at: &str, role: Role) {
    let (world, inner) = (Rc::clone(world), io.clone());
    accept(io, at, move |stream| serve(Rc::clone(&world), inner.clone(), stream, role));
}

async fn serve(world: Rc<World>, io: SimIo, stream: SimStream, role: Role) {
    let mut wire = Wire::new(&io, stream);
    while let Ok(true) = exchange(&world, &io, &mut wire, role).await {
        if world.random(|random| random.u8(..10)) == 0 {
            // Closes an idle connection. The proxy may send a request at the same moment.
            let patience = Duration::from_millis(world.random(|random| random.u64(..3000)));
            io.sleep(patience).await;
            if wire.is_quiet() {
                return;
            }
        }
    }
}

/// Serves one request. Returns whether the connection stays open.
async fn exchange(world: &World, io: &SimIo, wire: &mut Wire, role: Role) -> Result<bool, Cut> {
    let head = wire.reader().head().await?;
    let parts: Vec<&str> = head.first.split(' ').collect();
    assert_eq!(parts.len(), 3, "{head:?}");
    let plan = world.plan_of(parts[1]);
    assert_eq!(parts[0], plan.method, "request {}", plan.id);
    assert_eq!(head.field("host"), Some(role.host()));
    assert!(head.field("x-request-id").is_some());
    world.see(&plan, role);
    if !matches!(plan.endpoint_fault, Some(EndpointFault::Early { .. })) {
        read_body(wire, &plan, &head).await?;
    }
    io.sleep(plan.thinks).await;
    let whole = plan.response_bytes();
    match plan.endpoint_fault {
        None => {
            wire.send(&whole).await?;
            Ok(plan.response.0 != super::plan::Framing::UntilClose || !plan.answers_body())
        }
        Some(EndpointFault::Silent) => Ok(false),
        Some(EndpointFault::Truncates { reset }) => {
            let n = world.random(|random| random.usize(..whole.len()));
            wire.send(&whole[..n]).await?;
            if reset {
                wire.reset_on_close();
            }
            Ok(false)
        }
        Some(EndpointFault::Garbage) => {
            wire.send(b"\x16\x03\x01 this is not HTTP\r\n\r\n").await?;
            Ok(false)
        }
        Some(EndpointFault::Stalls) => {
            let n = world.random(|random| random.usize(..whole.len()));
            wire.send(&whole[..n]).await?;
            io.sleep(Duration::from_secs(300)).await;
            wire.send(&whole[n..]).await?;
            Ok(false)
        }
        Some(EndpointFault::Early { reads }) => {
            wire.send(&whole).await?;
            if reads {
                read_body(wire, &plan, &head).await?;
            }
            Ok(reads && plan.response.0 != super::plan::Framing::UntilClose)
        }
    }
}

async fn read_body(wire: &mut Wire, plan: &Plan, head: &super::wire::Head) -> Result<(), Cut> {
    let early = matches!(plan.endpoint_fault, Some(EndpointFault::Early { .. }));
    if !early && head.field("expect").is_some() && plan.id.is_multiple_of(2) {
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let body = wire.reader().body(head, false).await?;
    assert!(body == plan.request_body(), "request {} came with another body", plan.id);
    Ok(())
}
