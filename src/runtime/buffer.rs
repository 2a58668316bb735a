//! Pooled byte buffers. An I/O operation owns its buffer while it runs.
//!
//! A worker reuses buffers last in, first out, so they stay in the cache. A connection that waits
//! for its peer holds no buffer.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::Cell;
use std::ops::{Deref, DerefMut, Range};
use std::rc::Rc;

use memmap2::MmapMut;

use super::spare::Spare;

/// The size of a pooled buffer. It is above 16 KiB, so that a 16 KiB body and its head need one
/// read and one write. Small messages use only the first pages.
pub const BUFFER_BYTES: usize = 32 * 1024;

/// Free bytes before the data of a fresh buffer. A rewritten head that has grown still fits
/// directly before the body, so one write sends both.
pub const HEADROOM_BYTES: usize = 1024;

/// The number of different start offsets, one cache line apart, for the data of a fresh buffer.
/// Blocks are whole pages. With a single offset, small messages would all use the same few cache
/// sets and evict each other.
const BEGINNINGS: usize = 32;

const CACHE_LINE_BYTES: usize = 64;

/// The distance, in cache lines, between the start offsets of one block and the next. Small
/// messages are shorter than this. It has no common factor with [`BEGINNINGS`], so all offsets are
/// used.
const BEGINNINGS_APART: usize = 11;

/// How many free buffers a worker keeps. Buffers that were not needed for a second are dropped.
pub const POOLED_BUFFERS_MAX: usize = 1024;

/// While more buffers than this are in use, a connection waits for its next request without a
/// buffer. Below this number, a read that is already in flight saves a system call.
pub const READ_AHEAD_BUFFERS_MAX: usize = 512;

/// One worker's buffers. A clone is a second handle to the same pool.
#[derive(Clone, Default)]
pub struct BufferPool(Rc<PoolState>);

struct PoolState {
    free: Spare<Block>,
    used: Cell<usize>,
    /// The bytes of the larger buffers in use, without those that a pooled buffer has.
    larger_bytes: Cell<usize>,
    /// The number of bytes in use from which bodies are read only while their receivers accept
    /// bytes.
    bytes_max: Cell<usize>,
    /// How often a body has waited for its receiver at `bytes_max`.
    pauses: Cell<u64>,
    /// The number of pooled blocks made so far.
    made: Cell<usize>,
}

impl Default for PoolState {
    fn default() -> Self {
        Self {
            free: Spare::new(POOLED_BUFFERS_MAX),
            used: Cell::default(),
            larger_bytes: Cell::default(),
            bytes_max: Cell::new(usize::MAX),
            pauses: Cell::default(),
            made: Cell::default(),
        }
    }
}

impl BufferPool {
    /// Takes an empty buffer of [`BUFFER_BYTES`].
    pub fn take(&self) -> Buf {
        self.buf(self.0.free.take().unwrap_or_else(|| self.pooled_block()))
    }

    /// Takes an empty buffer with room for at least `data_bytes`. A buffer that is larger than a
    /// pooled buffer is not kept for reuse.
    pub fn take_sized(&self, data_bytes: usize) -> Buf {
        if data_bytes > BUFFER_BYTES - HEADROOM_BYTES {
            let block = Block::new(data_bytes + HEADROOM_BYTES, HEADROOM_BYTES);
            self.0.larger_bytes.set(self.0.larger_bytes.get() + block.len() - BUFFER_BYTES);
            return self.buf(block);
        }
        let mut buf = self.take();
        buf.start = buf.start.min(BUFFER_BYTES - data_bytes);
        buf.end = buf.start;
        buf
    }

    fn buf(&self, data: Block) -> Buf {
        self.0.used.set(self.0.used.get() + 1);
        let (begin, limit) = (data.begin, data.len());
        Buf { data, start: begin, end: begin, limit, pool: self.clone() }
    }

    fn pooled_block(&self) -> Block {
        let made = self.0.made.get();
        self.0.made.set(made.wrapping_add(1));
        let line = made.wrapping_mul(BEGINNINGS_APART) % BEGINNINGS;
        Block::new(BUFFER_BYTES, HEADROOM_BYTES + line * CACHE_LINE_BYTES)
    }

    /// The number of buffers in use.
    pub fn used(&self) -> usize {
        self.0.used.get()
    }

    /// The number of free buffers that are kept for reuse.
    pub fn pooled(&self) -> usize {
        self.0.free.len()
    }

    /// Whether too many buffers are in use. If so, a connection that waits for bytes holds no
    /// buffer.
    pub fn is_crowded(&self) -> bool {
        self.used() >= READ_AHEAD_BUFFERS_MAX || self.is_full()
    }

    /// The number of bytes in use. A buffer counts whole, even if it has little data.
    pub fn used_bytes(&self) -> usize {
        self.used() * BUFFER_BYTES + self.0.larger_bytes.get()
    }

    /// Limits the bytes in use to about `bytes`. [`BufferPool::take`] never fails: the readers of
    /// bodies ask [`BufferPool::is_full`] before they take a buffer.
    pub fn limit(&self, bytes: usize) {
        self.0.bytes_max.set(bytes);
    }

    /// Whether the bytes in use are at their limit. If so, a body takes a buffer only if its
    /// receiver accepts bytes now: then the write does not wait, and the buffer comes back at once.
    pub fn is_full(&self) -> bool {
        self.used_bytes() >= self.0.bytes_max.get()
    }

    /// Counts a body that waits for its receiver while the bytes in use are at their limit.
    pub fn count_pause(&self) {
        self.0.pauses.set(self.0.pauses.get() + 1);
    }

    /// How often a body has waited for its receiver while the bytes in use were at their limit.
    pub fn pauses(&self) -> u64 {
        self.0.pauses.get()
    }

    /// Drops the buffers that were not needed since the last call.
    pub fn trim(&self) {
        self.0.free.trim();
    }
}

/// A buffer with valid data in the window `start..end`. Dropping the buffer returns it to its pool.
pub struct Buf {
    data: Block,
    start: usize,
    end: usize,
    /// The end of the room for received bytes, as an offset in the block.
    limit: usize,
    pool: BufferPool,
}

impl Buf {
    /// The valid data.
    pub fn data(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The valid data, for editing in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// The complete block; `window()` is the position of the data in it. Offsets of a parsed head
    /// are relative to the first byte of the block, so they stay valid while data is consumed or
    /// appended.
    pub fn block(&self) -> &[u8] {
        &self.data
    }

    /// The position of the data in the block.
    pub fn window(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The number of data bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// True when there is no data.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The number of bytes that can still be appended.
    pub fn room(&self) -> usize {
        self.limit - self.end
    }

    /// Limits the room to `bytes`, at least one, for one read. Methods that move the data remove
    /// the limit.
    pub fn limit_room(&mut self, bytes: usize) {
        self.limit = self.data.len().min(self.end.saturating_add(bytes.max(1)));
    }

    /// Removes the limit on the room. Returns whether there was one.
    pub fn lift_limit(&mut self) -> bool {
        std::mem::replace(&mut self.limit, self.data.len()) < self.data.len()
    }

    /// The free bytes after the data. [`Buf::advance`] turns them into data.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.end..self.limit]
    }

    /// Turns the first `n` free bytes into data.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.room(), "advance within the buffer");
        self.end += n;
    }

    /// Drops `n` bytes from the front of the data.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "consume within the data");
        self.start += n;
    }

    /// Keeps only the first `n` bytes of the data.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.start + n);
    }

    /// Sets the window back to `window`, an earlier value.
    pub fn restore(&mut self, window: Range<usize>) {
        assert!(window.start <= window.end && window.end <= self.data.len(), "a former window");
        self.start = window.start;
        self.end = window.end;
        self.limit = self.data.len();
    }

    /// Drops all data. The next data begins after the headroom again.
    pub fn clear(&mut self) {
        self.start = self.data.begin;
        self.end = self.start;
        self.limit = self.data.len();
    }

    /// Appends as many of `bytes` as fit. Returns how many were appended.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        self.data[self.end..self.end + n].copy_from_slice(&bytes[..n]);
        self.end += n;
        n
    }

    /// Writes `head` directly before the data at `body_start`, an offset in the block. Overwrites
    /// the bytes before `body_start`. Returns false and changes nothing when there is not enough
    /// room.
    pub fn prepend_at(&mut self, body_start: usize, head: &[u8]) -> bool {
        debug_assert!(self.start <= body_start && body_start <= self.end);
        let Some(start) = body_start.checked_sub(head.len()) else { return false };
        self.data[start..body_start].copy_from_slice(head);
        self.start = start;
        true
    }

    /// Moves the data to the front, after the headroom, if fewer than `wanted` bytes are free after
    /// the data. This invalidates the offsets of a parsed head.
    pub fn make_room(&mut self, wanted: usize) {
        if self.room() >= wanted || self.start <= self.data.begin {
            return;
        }
        let begin = self.data.begin;
        self.data.copy_within(self.start..self.end, begin);
        self.end = begin + self.len();
        self.start = begin;
        self.limit = self.data.len();
    }

    /// Returns a new buffer with `head` and then the data of this buffer.
    pub fn behind(self, head: &[u8]) -> Self {
        let mut larger = self.pool.take_sized(head.len() + self.len());
        larger.append(head);
        larger.append(self.data());
        larger
    }

    /// Appends `bytes`. Copies the data to a larger buffer if this one has no room.
    pub fn with(mut self, bytes: &[u8]) -> Self {
        self.limit = self.data.len();
        if self.room() < bytes.len() {
            let wanted = self.len() + bytes.len();
            self = self.grown(wanted);
        }
        self.append(bytes);
        self
    }

    /// Returns the buffer to its pool. Returns the pool.
    pub fn give_back(self) -> BufferPool {
        self.pool.clone()
    }

    /// Copies the data to a buffer with room for `data_bytes` in total. This invalidates the
    /// offsets of a parsed head.
    pub fn grown(mut self, data_bytes: usize) -> Self {
        self.grow(data_bytes);
        self
    }

    /// Like [`Buf::grown`], in place.
    pub fn grow(&mut self, data_bytes: usize) {
        let mut larger = self.pool.take_sized(data_bytes);
        larger.append(self.data());
        *self = larger;
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let state = &self.pool.0;
        state.used.set(state.used.get() - 1);
        if self.data.len() == BUFFER_BYTES {
            state.free.put(std::mem::take(&mut self.data));
        } else {
            let larger_bytes = self.data.len() - BUFFER_BYTES;
            state.larger_bytes.set(state.larger_bytes.get() - larger_bytes);
        }
    }
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({}..{} of {})", self.start, self.end, self.data.len())
    }
}

/// Memory mapped directly from the kernel. Only pages that were written use memory, and dropping
/// the block returns all its pages. The allocator would keep the memory after a burst.
#[derive(Default)]
struct Block {
    memory: Option<MmapMut>,
    /// The start offset of the data in a fresh buffer.
    begin: usize,
}

impl Block {
    fn new(bytes: usize, begin: usize) -> Self {
        let mapped = MmapMut::map_anon(bytes).unwrap_or_else(|_| {
            handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>()))
        });
        Self { memory: Some(mapped), begin }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().unwrap_or_default()
    }
}

/// Appends `bytes` to `buf`, and returns `buf`.
pub fn filled(mut buf: Buf, bytes: &[u8]) -> Buf {
    buf.append(bytes);
    buf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again_and_starts_empty() {
        let pool = BufferPool::default();
        let mut buf = pool.take();
        buf.append(b"abc");
        assert_eq!((pool.used(), pool.pooled()), (1, 0));
        drop(buf);
        assert_eq!((pool.used(), pool.pooled()), (0, 1));
        assert!(pool.take().is_empty());
        assert_eq!(pool.pooled(), 1);
    }

    #[test]
    fn a_limit_of_the_room_holds_for_one_read_and_not_for_what_is_added() {
        let mut buf = BufferPool::default().take();
        buf.limit_room(4);
        assert_eq!((buf.append(b"abcdef"), buf.room()), (4, 0));
        let mut buf = buf.with(b"\r\n");
        assert_eq!(buf.data(), b"abcd\r\n");
        assert!(!buf.lift_limit() && buf.room() > 1024);
        buf.limit_room(0);
        assert_eq!(buf.room(), 1, "a read needs room");
        buf.clear();
        assert!(buf.room() > 1024);
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        let pool = BufferPool::default();
        let large = pool.take_sized(BUFFER_BYTES + 1);
        assert_eq!(pool.used_bytes(), BUFFER_BYTES + 1 + HEADROOM_BYTES);
        drop(large);
        assert_eq!((pool.used(), pool.pooled(), pool.used_bytes()), (0, 0, 0));
    }

    #[test]
    fn a_pool_is_full_at_its_limit_and_still_gives_buffers() {
        let pool = BufferPool::default();
        pool.limit(2 * BUFFER_BYTES);
        let first = pool.take();
        assert!(!pool.is_full() && !pool.is_crowded());
        let second = pool.take_sized(2 * BUFFER_BYTES);
        assert!(pool.is_full() && pool.is_crowded());
        let third = pool.take();
        assert_eq!(third.room(), BUFFER_BYTES - third.window().start);
        drop((second, third));
        assert!(!pool.is_full());
        drop(first);
        pool.limit(usize::MAX);
        let bufs: Vec<Buf> = (0..READ_AHEAD_BUFFERS_MAX).map(|_| pool.take()).collect();
        assert!(pool.is_crowded() && !pool.is_full());
        drop(bufs);
    }

    #[test]
    fn a_longer_head_goes_before_the_body() {
        let mut buf = BufferPool::default().take();
        buf.append(b"headbody");
        let body = buf.window().start + 4;
        assert!(buf.prepend_at(body, b"a longer head:"));
        assert_eq!(buf.data(), b"a longer head:body");
        let body = buf.window().end - 4;
        assert!(!buf.prepend_at(body, &[b'x'; BUFFER_BYTES]));
        assert_eq!(buf.data(), b"a longer head:body");
    }

    #[test]
    fn consumed_space_comes_back() {
        let mut buf = BufferPool::default().take();
        while buf.append(&[7; 1000]) == 1000 {}
        buf.consume(buf.len() - 10);
        assert_eq!(buf.room(), 0);
        buf.make_room(1);
        assert_eq!((buf.len(), buf.room()), (10, BUFFER_BYTES - HEADROOM_BYTES - 10));
    }

    #[test]
    fn buffers_in_use_together_begin_at_different_lines() {
        let pool = BufferPool::default();
        let bufs: Vec<Buf> = (0..BEGINNINGS).map(|_| pool.take()).collect();
        let mut begins: Vec<usize> = bufs.iter().map(|buf| buf.window().start).collect();
        begins.sort_unstable();
        begins.dedup();
        assert_eq!(begins.len(), BEGINNINGS);
        let (first, last) = (begins[0], begins[BEGINNINGS - 1]);
        assert!(first >= HEADROOM_BYTES && last < 4096, "a small message stays in the first page");
        assert!(bufs.iter().all(|buf| buf.room() >= 16 * 1024 + 4096), "a large body and its head");
        let large = BUFFER_BYTES - HEADROOM_BYTES;
        drop(bufs);
        let bufs: Vec<Buf> = (0..BEGINNINGS).map(|_| pool.take_sized(large)).collect();
        assert!(bufs.iter().all(|buf| buf.room() == large), "in pooled blocks all the same");
        drop(bufs);
        assert_eq!(pool.pooled(), BEGINNINGS);
    }
}
