//! HTTP/2: our connection and the crate `h2` in the same role treat the same frames alike. After
//! each frame they have refused the same streams, or the connection, or nothing, and their
//! applications have received the same messages.
//!
//! The input is a script. `script` turns it into frames of the peer, most of them valid, and into
//! acts of the application. `rules` has the differences that RFC 9113 allows.

use std::collections::BTreeMap;

#[path = "http2_differential/ours.rs"]
mod ours;
#[path = "http2_differential/rules.rs"]
mod rules;
#[path = "http2_differential/script.rs"]
mod script;
#[path = "http2_differential/theirs.rs"]
mod theirs;

use script::{Script, Step};

/// The windows of streams and the number of streams that both sides allow.
const STREAM_WINDOW_BYTES: u32 = 1000;
const STREAMS_MAX: u32 = 4;
/// The window of the connection: it is the default, so that a script can use it up.
const CONNECTION_WINDOW_BYTES: u32 = 65_535;
/// `limits.header_bytes` of both sides.
const HEADER_BYTES: usize = 16 * 1024;

/// The role of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

type Line = (Vec<u8>, Vec<u8>);

/// The messages that an application has received on one stream.
#[derive(Debug, Default)]
struct Seen {
    /// The fields of each head, with the pseudo-header fields, in the order of their names.
    heads: Vec<Vec<Line>>,
    body: Vec<u8>,
    trailers: Vec<Line>,
    /// The peer has ended the message.
    ended: bool,
    /// The stream has ended early.
    cut: bool,
    /// The application refuses the head, although its stream goes on.
    refused: bool,
    /// Our message is complete and written.
    sent: bool,
}

/// An act of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Open {
        ends: bool,
        head: bool,
    },
    Respond {
        id: u32,
        status: u16,
        ends: bool,
    },
    Data {
        id: u32,
        bytes: usize,
        ends: bool,
    },
    Trailers {
        id: u32,
    },
    /// Ends the stream early.
    Reset {
        id: u32,
    },
    /// Forgets a stream that has ended.
    Drop {
        id: u32,
    },
}

/// A connection and its application.
trait Side {
    /// Receives bytes of the peer.
    fn receive(&mut self, bytes: &[u8]);
    /// Whether one more stream can be opened.
    fn can_open(&mut self) -> bool;
    fn act(&mut self, act: Act);
    /// Reads and writes until nothing more happens. Returns the bytes that the connection writes.
    /// `reads`: the application reads the bodies.
    fn settle(&mut self, reads: bool) -> Vec<u8>;
    fn seen(&self) -> &BTreeMap<u32, Seen>;
    /// Whether the connection has ended.
    fn is_over(&self) -> bool;
}

/// The reaction to one step, from the written frames.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reaction {
    /// The streams that were reset, and the codes.
    resets: Vec<(u32, u32)>,
    /// The code of GOAWAY.
    end: Option<u32>,
    acknowledged: usize,
    pongs: Vec<Vec<u8>>,
}

/// The windows in which the peer may send, as one side has announced them.
struct Windows {
    connection: i64,
    streams: BTreeMap<u32, i64>,
    initial: i64,
    announced: i64,
}

impl Windows {
    fn new() -> Self {
        let default = i64::from(CONNECTION_WINDOW_BYTES);
        Self { connection: default, streams: BTreeMap::new(), initial: default, announced: default }
    }

    fn stream(&mut self, id: u32) -> &mut i64 {
        self.streams.entry(id).or_insert(self.initial)
    }

    /// Records the frames that the side has written, and returns its reaction.
    fn read(&mut self, mut said: &[u8]) -> Reaction {
        let mut reaction = Reaction::default();
        said = said.strip_prefix(ringway::http2::PREFACE).unwrap_or(said);
        while let Some((&[a, b, c, kind, flags, w, x, y, z], rest)) = said.split_first_chunk() {
            let (payload, rest) = rest.split_at(u32::from_be_bytes([0, a, b, c]) as usize);
            said = rest;
            let id = u32::from_be_bytes([w, x, y, z]);
            match (kind, flags & 1) {
                (3, _) => reaction.resets.push((id, number(payload))),
                (4, 1) => reaction.acknowledged += 1,
                (4, _) => {
                    let values = payload.as_chunks::<6>().0;
                    for value in values.iter().filter(|value| value[..2] == [0, 4]) {
                        self.announced = number(&value[2..]).into();
                    }
                }
                (6, 1) => reaction.pongs.push(payload.to_vec()),
                // A GOAWAY without an error is the farewell of a connection that ends well.
                (7, _) if number(&payload[4..]) != 0 => reaction.end = Some(number(&payload[4..])),
                (8, _) if id == 0 => self.connection += i64::from(number(payload)),
                (8, _) => *self.stream(id) += i64::from(number(payload)),
                _ => {}
            }
        }
        reaction.resets.sort_unstable();
        reaction
    }

    /// Records that the peer has acknowledged the announced settings.
    fn apply(&mut self) {
        let change = self.announced - self.initial;
        self.streams.values_mut().for_each(|window| *window += change);
        self.initial = self.announced;
    }

    /// Whether `bytes` bytes of DATA fit in the windows of the connection and of the stream.
    fn fit(&mut self, id: u32, bytes: usize) -> (bool, bool) {
        let bytes = bytes as i64;
        (bytes <= self.connection.max(0), bytes <= (*self.stream(id)).max(0))
    }

    fn take(&mut self, id: u32, bytes: usize) {
        self.connection -= bytes as i64;
        *self.stream(id) -= bytes as i64;
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}

/// Checks the property for `input`: the role, and a script.
pub fn holds(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let mut pair = Pair {
        ours: Box::new(ours::Ours::new(role)),
        theirs: Box::new(theirs::Theirs::new(role)),
        windows: [Windows::new(), Windows::new()],
        reads: true,
        blocks: rules::Blocks::default(),
        trail: Vec::new(),
    };
    pair.windows[0].read(&pair.ours.settle(true));
    pair.windows[1].read(&pair.theirs.settle(true));
    let mut script = Script::new(role, bytes);
    while let Some(step) = script.next(pair.ours.seen()) {
        if !pair.run(&mut script, step) {
            return;
        }
    }
}

/// Both sides.
struct Pair {
    ours: Box<dyn Side>,
    theirs: Box<dyn Side>,
    windows: [Windows; 2],
    reads: bool,
    blocks: rules::Blocks,
    /// The steps so far.
    trail: Vec<String>,
}

impl Pair {
    /// Runs a step on both sides and compares them. Returns false if both have ended, or may now
    /// differ.
    fn run(&mut self, script: &mut Script<'_>, step: Step) -> bool {
        self.trail.push(format!("{step:x?}"));
        match &step {
            Step::Frames(bytes) if !self.fits_alike(bytes) => return true,
            Step::Frames(bytes) => {
                self.ours.receive(bytes);
                self.theirs.receive(bytes);
            }
            Step::Act(act) => {
                if let Act::Open { .. } = act
                    && !(self.ours.can_open() && self.theirs.can_open())
                {
                    return true;
                }
                if let Act::Open { head, .. } = act {
                    self.blocks.has_opened(*head);
                }
                script.has_acted(*act);
                self.ours.act(*act);
                self.theirs.act(*act);
            }
            Step::Pause(pause) => self.reads = !pause,
        }
        let ours = self.ours.settle(self.reads);
        let theirs = self.theirs.settle(self.reads);
        let ours = self.windows[0].read(&ours);
        let theirs = self.windows[1].read(&theirs);
        if let Step::Frames(bytes) = &step {
            self.blocks.read(bytes);
            self.trail.extend(self.blocks.block());
        }
        if ours != theirs {
            // The applications learn what they have not read.
            self.ours.settle(true);
            self.theirs.settle(true);
            if self.has_own_answer() {
                return false;
            }
            let crate_cut = self.theirs.seen().get(&self.blocks.id()).is_some_and(|seen| seen.cut);
            let end = (self.theirs.is_over(), crate_cut);
            let known = rules::allowed(&step, &self.blocks, (&ours, &theirs), end);
            assert!(known, "{ours:?}\n{theirs:?} {end:?}\n{}", self.trail.join("\n"));
            return false;
        }
        self.blocks.has_reset(&ours);
        // A connection that the peer leaves may be closed at any time (RFC 9113 6.8).
        let both_live = ours.end.is_none() && !self.theirs.is_over();
        both_live && !self.has_own_answer() && !self.blocks.confuse() && self.same_messages()
    }

    /// Whether the proxy gives an answer of its own to a head: see `rules`.
    fn has_own_answer(&self) -> bool {
        self.ours.seen().values().any(|seen| seen.refused)
    }

    /// Whether the DATA frames of a step fit in the windows of both sides, or of neither. The time
    /// of WINDOW_UPDATE is free (RFC 9113 6.9), so the windows differ.
    fn fits_alike(&mut self, bytes: &[u8]) -> bool {
        let mut bytes = bytes.strip_prefix(ringway::http2::PREFACE).unwrap_or(bytes);
        while let Some((&[a, b, c, kind, flags, w, x, y, z], rest)) = bytes.split_first_chunk() {
            let payload_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
            let id = u32::from_be_bytes([w, x, y, z]) & 0x7fff_ffff;
            bytes = rest.get(payload_bytes..).unwrap_or_default();
            let [ours, theirs] = &mut self.windows;
            match kind {
                0 if ours.fit(id, payload_bytes) != theirs.fit(id, payload_bytes) => return false,
                0 => {
                    ours.take(id, payload_bytes);
                    theirs.take(id, payload_bytes);
                }
                4 if flags & 1 == 1 => {
                    ours.apply();
                    theirs.apply();
                }
                _ => {}
            }
        }
        true
    }

    /// Compares the received messages. Returns false if they may differ from now on.
    fn same_messages(&self) -> bool {
        let (ours, theirs) = (self.ours.seen(), self.theirs.seen());
        let ids = |seen: &BTreeMap<u32, Seen>| seen.keys().copied().collect::<Vec<_>>();
        assert_eq!(ids(ours), ids(theirs), "{}", self.trail.join("\n"));
        for (id, our) in ours.iter().filter(|(id, _)| !self.blocks.is_bodiless(**id)) {
            let their = &theirs[id];
            // What waits unread when a stream is cut may be dropped (RFC 9113 5.4.2).
            let bodies = match our.cut || their.cut {
                true => our.body.starts_with(&their.body),
                false => our.body == their.body && our.trailers == their.trailers,
            };
            let ends = our.ended == their.ended || their.cut;
            let same = our.heads == their.heads && ends && (our.ended || our.cut == their.cut);
            assert!(same && bodies, "{id}: {our:?}\n{their:?}\n{}", self.trail.join("\n"));
        }
        true
    }
}
