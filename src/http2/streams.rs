//! The streams of a connection: their states (RFC 9113 5.1), windows and received bodies.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use super::frame::Code;
use super::receive::Message;
use crate::runtime::buffer::Buf;

/// The window of a stream and of a connection until SETTINGS change it (RFC 9113 6.9.2).
pub(super) const WINDOW_BYTES: i64 = 65_535;

/// The largest window (RFC 9113 6.9.1).
pub(super) const WINDOW_BYTES_MAX: i64 = 0x7fff_ffff;

/// Bytes that a read leaves free at the end of a buffer, for the line break and the last chunk of
/// the chunked coding.
const SLACK_BYTES: usize = 64;

/// The overhead of an unread DATA frame is this many bytes minus its size: see
/// [`FloodLimits::data_overhead_bytes`](super::FloodLimits::data_overhead_bytes).
const FRAME_COST_BYTES: usize = 256;

/// The reason why a stream ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The peer has reset the stream.
    Reset(Code),
    /// The endpoint says, by GOAWAY or REFUSED_STREAM, that it did not process the stream.
    Unprocessed,
    /// The peer violated the protocol.
    Breach,
    /// The peer exceeded a limit.
    Flood,
    /// The connection was closed.
    Closed,
    /// We have reset the stream.
    Ours,
}

impl Cut {
    /// Whether we have sent RST_STREAM. The peer may not have received it yet, so its frames are
    /// not errors (RFC 9113 5.1).
    pub(super) fn is_by_us(self) -> bool {
        matches!(self, Self::Breach | Self::Flood | Self::Ours)
    }
}

/// The state of one direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    /// The final head has not been received or sent.
    Head,
    /// The body, and then trailers, may follow.
    Body,
    /// END_STREAM was received or sent.
    Ended,
}

/// The state of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) receiving: Half,
    pub(super) sending: Half,
    pub(super) cut: Option<Cut>,
    /// Heads of the response that the exchange has not taken.
    pub(super) heads: VecDeque<Message>,
    pub(super) inbox: Inbox,
    pub(super) trailers: Vec<u8>,
    /// The number of body bytes that are missing according to Content-Length.
    pub(super) content_left: Option<u64>,
    /// The request method is HEAD, so the response has no body, whatever its Content-Length says.
    pub(super) is_head: bool,
    /// The number of bytes that we may still send.
    pub(super) send_window: i64,
    pub(super) receive_window: ReceiveWindow,
    /// Whether an exchange uses the stream.
    pub(super) is_used: bool,
    /// Whether the stream waits in `Core::turns` to send.
    pub(super) is_queued: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) leaver: Option<Waker>,
}

impl Stream {
    pub(super) fn new(id: u32, send_window: i64, receive_window: ReceiveWindow) -> Self {
        Self {
            id,
            receiving: Half::Head,
            sending: Half::Head,
            cut: None,
            heads: VecDeque::new(),
            inbox: Inbox::default(),
            trailers: Vec::new(),
            content_left: None,
            is_head: false,
            send_window,
            receive_window,
            is_used: true,
            is_queued: false,
            reader: None,
            writer: None,
            leaver: None,
        }
    }

    /// Whether the stream counts against the limit of open streams.
    pub(super) fn is_open(&self) -> bool {
        self.cut.is_none() && !(self.receiving == Half::Ended && self.sending == Half::Ended)
    }

    /// Ends the stream early and wakes all tasks that wait for it. Received data stays readable.
    pub(super) fn cut(&mut self, cut: Cut) {
        self.cut.get_or_insert(cut);
        self.wake_all();
    }

    pub(super) fn wake_all(&mut self) {
        for waker in [&mut self.reader, &mut self.writer, &mut self.leaver] {
            wake(waker);
        }
    }
}

/// Calls and removes a waker.
pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Stores the waker of `context` in `waker`.
pub(super) fn wait(waker: &mut Option<Waker>, context: &Context<'_>) {
    match waker {
        Some(known) if known.will_wake(context.waker()) => {}
        _ => *waker = Some(context.waker().clone()),
    }
}

/// The received part of a body that has not been read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// The number of bytes at the front of `bytes` that were read.
    read: usize,
    /// The buffer of an exchange that waits for data. Data goes directly to it.
    reading: Option<Buf>,
    /// The number of bytes in `reading` when the wait began.
    before: usize,
    /// The overhead of the unread DATA frames, in bytes: see [`FRAME_COST_BYTES`].
    overhead_bytes: usize,
}

impl Inbox {
    /// The number of unread bytes.
    pub(super) fn len(&self) -> usize {
        let new = self.reading.as_ref().map_or(0, |buf| buf.len() - self.before);
        self.bytes.len() - self.read + new
    }

    /// The overhead of the unread frames, in bytes.
    pub(super) fn overhead_bytes(&self) -> usize {
        self.overhead_bytes
    }

    /// Adds the content of a DATA frame.
    pub(super) fn push(&mut self, mut data: &[u8]) {
        if self.len() > 0 {
            self.overhead_bytes += FRAME_COST_BYTES.saturating_sub(data.len());
        }
        if let Some(buf) = self.reading.as_mut().filter(|_| self.bytes.is_empty()) {
            let room = buf.room().saturating_sub(SLACK_BYTES).min(data.len());
            data = &data[buf.append(&data[..room])..];
        }
        self.bytes.extend_from_slice(data);
    }

    /// Appends as many unread bytes to `buf` as fit. Returns their number.
    pub(super) fn read(&mut self, buf: &mut Buf) -> usize {
        let unread = &self.bytes[self.read..];
        let n = buf.append(&unread[..buf.room().saturating_sub(SLACK_BYTES).min(unread.len())]);
        self.read += n;
        if self.read == self.bytes.len() {
            self.bytes = Vec::new();
            self.read = 0;
            self.overhead_bytes = 0;
        }
        n
    }

    /// Stores the buffer of an exchange that waits for data.
    pub(super) fn lend(&mut self, buf: Buf) {
        self.before = buf.len();
        self.reading = Some(buf);
    }

    /// Returns the lent buffer, and the number of bytes that were added to it.
    pub(super) fn give_back(&mut self) -> Option<(Buf, usize)> {
        let buf = self.reading.take()?;
        let new = buf.len() - self.before;
        if self.bytes.is_empty() {
            self.overhead_bytes = 0;
        }
        Some((buf, new))
    }

    /// Moves the new bytes out of the lent buffer, because its exchange no longer waits. Returns
    /// the buffer without them.
    pub(super) fn reclaim(&mut self) -> Option<Buf> {
        let (mut buf, new) = self.give_back()?;
        let before = buf.len() - new;
        let mut bytes = buf.data()[before..].to_vec();
        bytes.extend_from_slice(&self.bytes[self.read..]);
        (self.bytes, self.read) = (bytes, 0);
        buf.truncate(before);
        Some(buf)
    }

    /// Drops the unread data and the lent buffer.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The flow-control window for received data, of a stream or of the connection. It grows while the
/// exchange reads everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    /// The number of bytes that the peer may still send.
    left: i64,
    /// The size of the window when all received bytes are read.
    size: i64,
    size_max: i64,
}

impl ReceiveWindow {
    pub(super) fn new(size: i64, size_max: i64) -> Self {
        Self { left: size, size, size_max: size_max.max(size) }
    }

    /// Changes the window by `by` bytes. The peer has acknowledged the SETTINGS with the change.
    pub(super) fn change(&mut self, by: i64) {
        self.left += by;
        self.size += by;
        self.size_max = self.size_max.max(self.size);
    }

    /// Subtracts `bytes`. Returns false if they exceed the window. SETTINGS may have made the
    /// window negative; an empty frame is allowed even then.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes as i64 <= self.left.max(0);
        self.left -= bytes as i64;
        fits
    }

    /// Returns the number of bytes to grant with WINDOW_UPDATE while `unread` bytes are unread. 0
    /// means that no WINDOW_UPDATE is due.
    pub(super) fn refill(&mut self, unread: usize) -> u32 {
        let owed = self.size - self.left - unread as i64;
        if owed < self.size / 2 {
            return 0;
        }
        if unread == 0 {
            self.size = (self.size * 2).min(self.size_max);
        }
        let refill = (self.size - unread as i64 - self.left).clamp(0, WINDOW_BYTES_MAX);
        self.left += refill;
        refill as u32
    }
}

/// All streams of a connection, in ascending order of their ids.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "a stream that leaves the table moves all later ones")]
pub(super) struct Streams(Vec<Box<Stream>>);

impl Streams {
    fn find(&self, id: u32) -> Result<usize, usize> {
        // Usually the last stream is wanted.
        match self.0.last() {
            Some(last) if last.id == id => Ok(self.0.len() - 1),
            _ => self.0.binary_search_by_key(&id, |stream| stream.id),
        }
    }

    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        self.find(id).ok().map(|at| &*self.0[at])
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.find(id).ok().map(|at| &mut *self.0[at])
    }

    /// Adds a stream. Its id must be larger than all others.
    pub(super) fn add(&mut self, stream: Stream) {
        debug_assert!(self.0.last().is_none_or(|last| last.id < stream.id), "ids grow");
        self.0.push(Box::new(stream));
    }

    /// Removes a stream if it has ended and no exchange uses it.
    pub(super) fn forget_if_over(&mut self, id: u32) {
        if let Ok(at) = self.find(id)
            && !self.0[at].is_used
            && !self.0[at].is_open()
        {
            self.0.remove(at);
            if self.0.is_empty() {
                self.0 = Vec::new(); // an idle connection holds no table
            }
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.0.iter_mut().map(|stream| &mut **stream)
    }

    /// Whether at least `streams_max` streams are open. Usually the table is shorter than
    /// `streams_max`, so the open streams need not be counted.
    pub(super) fn are_full(&self, streams_max: usize) -> bool {
        self.0.len() >= streams_max && self.open() >= streams_max
    }

    /// The number of streams in the table, open or ended.
    pub(super) fn known(&self) -> usize {
        self.0.len()
    }

    /// The number of streams that count against the limit of open streams.
    pub(super) fn open(&self) -> usize {
        self.0.iter().filter(|stream| stream.is_open()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::buffer::BufferPool;

    #[test]
    fn data_goes_to_the_buffer_that_waits_and_stays_when_nobody_waits() {
        let pool = BufferPool::default();
        let mut inbox = Inbox::default();
        inbox.push(b"abc");
        let mut buf = pool.take();
        assert_eq!((inbox.read(&mut buf), inbox.len()), (3, 0));
        inbox.lend(buf);
        inbox.push(b"de");
        inbox.push(b"f");
        assert_eq!(inbox.len(), 3);
        let (buf, new) = inbox.give_back().unwrap();
        assert_eq!((buf.data(), new, inbox.len()), (&b"abcdef"[..], 3, 0));
        // The exchange ends while it waits.
        inbox.lend(buf);
        inbox.push(b"gh");
        assert_eq!(inbox.reclaim().unwrap().data(), b"abcdef");
        inbox.push(b"i");
        let mut buf = pool.take();
        assert_eq!((inbox.len(), inbox.read(&mut buf)), (3, 3));
        assert_eq!(buf.data(), b"ghi");
    }

    #[test]
    fn a_buffer_that_is_full_leaves_the_rest_in_order() {
        let pool = BufferPool::default();
        let mut inbox = Inbox::default();
        inbox.lend(pool.take());
        let data: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        data.chunks(16_000).for_each(|chunk| inbox.push(chunk));
        assert_eq!(inbox.len(), data.len());
        let (buf, _) = inbox.give_back().unwrap();
        let mut read = buf.data().to_vec();
        while inbox.len() > 0 {
            let mut buf = pool.take();
            assert!(inbox.read(&mut buf) > 0);
            read.extend_from_slice(buf.data());
        }
        assert_eq!(read, data);
    }

    #[test]
    fn only_small_unread_frames_cost_more_than_their_bytes() {
        let mut inbox = Inbox::default();
        for (data, expected) in [(1, 0), (1, 255), (300, 255), (100, 411)] {
            inbox.push(&vec![0; data]);
            assert_eq!(inbox.overhead_bytes(), expected);
        }
        while inbox.read(&mut BufferPool::default().take()) > 0 {}
        assert_eq!(inbox.overhead_bytes(), 0);
    }

    #[test]
    fn a_window_follows_its_reader() {
        let mut window = ReceiveWindow::new(1000, 4000);
        // (bytes sent by the peer, bytes still unread, bytes granted)
        for (sent, unread, refill) in [
            (400, 0, 0),
            (200, 0, 1600), // 600 are read, and it doubles
            (1500, 1500, 0),
            (0, 400, 1100),  // 1100 of 1500 are read: no growth
            (1600, 0, 4000), // all is read, and it doubles
        ] {
            assert!(window.take(sent));
            assert_eq!(window.refill(unread), refill, "{sent} {unread}");
        }
        assert!(!window.take(4001));
    }

    #[test]
    fn a_window_that_settings_made_negative_takes_only_what_is_empty() {
        let mut window = ReceiveWindow::new(1000, 1000);
        assert!(window.take(900));
        window.change(-500);
        assert!(window.take(0) && !window.take(1));
    }
}
