"""A client that breaks the rules of HTTP/3 and QPACK, each time on a new connection. The code of each error is known."""

import asyncio
import ssl
import urllib.request
from contextlib import asynccontextmanager

import aio
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var as varint
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamReset

NAMES = {
    0x103: "H3_STREAM_CREATION_ERROR", 0x104: "H3_CLOSED_CRITICAL_STREAM", 0x105: "H3_FRAME_UNEXPECTED",
    0x106: "H3_FRAME_ERROR", 0x107: "H3_EXCESSIVE_LOAD", 0x108: "H3_ID_ERROR", 0x109: "H3_SETTINGS_ERROR",
    0x10a: "H3_MISSING_SETTINGS", 0x10d: "H3_REQUEST_INCOMPLETE", 0x10e: "H3_MESSAGE_ERROR",
    0x200: "QPACK_DECOMPRESSION_FAILED", 0x201: "QPACK_ENCODER_STREAM_ERROR", 0x202: "QPACK_DECODER_STREAM_ERROR",
}


def frame(kind, payload=b""):
    return varint(kind) + varint(len(payload)) + payload


def section(*lines):
    """A HEADERS frame without the dynamic table. All strings are literals."""
    payload = b"\0\0"
    for name, value in lines:
        assert len(name) < 7 + 128 and len(value) < 127
        payload += (bytes([0x20 | len(name)]) if len(name) < 7 else bytes([0x27, len(name) - 7])) + name
        payload += bytes([len(value)]) + value
    return frame(1, payload)


PSEUDO = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/sum")]
POST = section(*PSEUDO)
SETTINGS = b"\0" + frame(4)


def sized(length):
    return section(*PSEUDO, (b"content-length", length))


# What the client sends: bytes on unidirectional streams, or a whole request, and the code that it gets.
STREAMS = [
    ("a push of a client", [b"\x01"], 0x103),
    ("two control streams", [SETTINGS, SETTINGS], 0x103),
    ("DATA on the control stream", [SETTINGS + frame(0)], 0x105),
    ("a frame of HTTP/2", [SETTINGS + frame(6, b"12345678")], 0x105),
    ("SETTINGS twice", [SETTINGS + frame(4)], 0x105),
    ("GOAWAY without an id", [SETTINGS + frame(7)], 0x106),
    ("GOAWAY that grows", [SETTINGS + frame(7, b"\0") + frame(7, b"\4")], 0x108),
    ("CANCEL_PUSH of no push", [SETTINGS + frame(3, b"\0")], 0x108),
    ("MAX_PUSH_ID that shrinks", [SETTINGS + frame(13, b"\1") + frame(13, b"\0")], 0x108),
    ("PRIORITY_UPDATE of a wrong stream", [SETTINGS + frame(0xf0700, b"\1u=1")], 0x108),
    ("a setting of HTTP/2", [b"\0" + frame(4, b"\x02\0")], 0x109),
    ("a setting twice", [b"\0" + frame(4, b"\x06\1\x06\1")], 0x109),
    ("GOAWAY before SETTINGS", [b"\0" + frame(7, b"\0")], 0x10a),
    ("a flood of unknown frames", [SETTINGS + frame(0x21) * 101], 0x107),
    ("a table above our limit", [b"\x02\x3f\xe2\x1f"], 0x201),
    ("an entry above the table", [b"\x02\x41x\x01y"], 0x201),
    ("an answer to no section", [b"\x03\x80"], 0x202),
    ("an answer to no entry", [b"\x03\x01"], 0x202),
]
REQUESTS = [
    ("DATA before the head", frame(0, b"x"), "connection", 0x105),
    ("HEADERS after the trailers", POST + section((b"x", b"y")) * 2, "connection", 0x105),
    ("SETTINGS in a request", POST + frame(4), "connection", 0x105),
    ("the end inside a frame", POST[:-3], "connection", 0x106),
    ("a section without a prefix", frame(1), "connection", 0x200),
    ("an entry that is not there", frame(1, b"\0\0\x80"), "connection", 0x200),
    ("a section of 1000 entries that are too large", None, "connection", 0x107),
    ("the end before the head", b"", "stream", 0x10d),
    ("a body that is too short", sized(b"6") + frame(0, b"hello"), "stream", 0x10e),
    ("a body that is too long", sized(b"4") + frame(0, b"hello"), "stream", 0x10e),
    ("no :path", section(*PSEUDO[:3]), "stream", 0x10e),
    ("a field in upper case", section(*PSEUDO, (b"X-A", b"1")), "stream", 0x10e),
    ("connection: close", section(*PSEUDO, (b"connection", b"close")), "stream", 0x10e),
]


class Raw(QuicConnectionProtocol):
    """A connection without a library of HTTP/3."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.closed, self.refused = asyncio.get_running_loop().create_future(), {}

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated) and not self.closed.done():
            self.closed.set_result(event.error_code)
        if isinstance(event, (StreamReset, StopSendingReceived)):
            self.future(event.stream_id).set_result(event.error_code)

    def future(self, stream):
        known = self.refused.get(stream)
        if known is None or known.done():
            known = self.refused[stream] = asyncio.get_running_loop().create_future()
        return known

    def send(self, data, fin=False, uni=False):
        stream = self._quic.get_next_available_stream_id(is_unidirectional=uni)
        self._quic.send_stream_data(stream, data, end_stream=fin)
        self.transmit()
        return stream


@asynccontextmanager
async def raw(port):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE,
                                      server_name="localhost")
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Raw) as connection:
        yield connection


def show(code, where, what):
    print(f"  | {NAMES.get(code, hex(code))} | {where} | {what} |")


async def errors(world):
    neighbour = aio.client(world.port)
    async with neighbour as calm:
        for what, streams, code in STREAMS:
            async with raw(world.port) as it:
                for data in streams:
                    it.send(data, uni=True)
                aio.expect(what, hex(await asyncio.wait_for(it.closed, 10)), hex(code))
                show(code, "connection", what)
        for what, data, where, code in REQUESTS:
            async with raw(world.port) as it:
                it.send(SETTINGS, uni=True)
                if data is None:
                    it.send(b"\x02\x3f\xe1\x1f\x41x\x7f\x81\x17" + b"y" * 3072, uni=True)
                    data = frame(1, b"\x02\0" + b"\x80" * 1000)
                stream = it.send(data, fin=True)
                found = it.closed if where == "connection" else it.future(stream)
                aio.expect(what, hex(await asyncio.wait_for(found, 10)), hex(code))
                show(code, where, what)
        await critical(world)
        await given_up(world)
        await rapid_reset(world)
        # All that did not disturb another connection.
        aio.expect("the neighbour", (await calm.ask("/hello")).status, 200)


async def critical(world):
    for stream in (3, 7, 11):
        async with raw(world.port) as it:
            it.send(SETTINGS, uni=True)
            while stream not in it._quic._streams:
                await asyncio.wait_for(it.ping(), 10)
            it._quic.stop_stream(stream, 0)
            it.transmit()
            aio.expect("STOP_SENDING of a critical stream", hex(await asyncio.wait_for(it.closed, 10)), hex(0x104))
    async with raw(world.port) as it:
        it.send(SETTINGS, uni=True, fin=True)
        aio.expect("the end of the control stream", hex(await asyncio.wait_for(it.closed, 10)), hex(0x104))
    show(0x104, "connection", "the end or STOP_SENDING of a critical stream")


async def given_up(world):
    """Requests that end before their heads, or with an error, free their places."""
    async with aio.client(world.port) as it:
        for n in range(300):
            stream = it._quic.get_next_available_stream_id()
            data = b"\x01" if n % 2 == 0 else section(*PSEUDO[:2])
            it._quic.send_stream_data(stream, data)
            it.transmit()
            if n % 2 == 0:
                it._quic.reset_stream(stream, 0x10c)
                it.transmit()
            if n % 20 == 19:
                await asyncio.wait_for(it.ping(), 10)
        aio.expect("after 300 requests that ended early", (await it.ask("/hello")).status, 200)
    print("  300 requests that ended before their heads were complete: the next one is served")


async def rapid_reset(world):
    async with aio.client(world.port) as it:
        for n in range(5000):
            if it.gone.is_set():
                break
            stream, _ = it.begin("GET", "/hello")
            it._quic.reset_stream(stream, 0x10c)
            it.transmit()
            if n % 20 == 19:  # aioquic also resets streams that it may not open yet
                try:
                    await asyncio.wait_for(it.ping(), 2)
                except (ConnectionError, asyncio.TimeoutError):
                    pass
        await asyncio.wait_for(it.gone.wait(), 10)
        aio.expect("a flood of resets", hex(it.ended.error_code), hex(0x107))
    page = urllib.request.urlopen(f"http://127.0.0.1:{world.admin}/metrics").read().decode()
    counted = [line for line in page.splitlines() if "http3_floods_total" in line and "stream_resets" in line]
    aio.expect("the counter", [line.split()[-1] for line in counted], ["1"])
    show(0x107, "connection", "a flood of resets, which is counted as stream_resets")
