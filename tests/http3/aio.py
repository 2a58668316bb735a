"""aioquic as a client of HTTP/3: messages, and what only a client of QUIC can provoke."""

import asyncio
import hashlib
import ssl
from contextlib import asynccontextmanager

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, StreamReset


class Response:
    """A response as it arrives."""

    def __init__(self):
        self.interim, self.head, self.trailers = [], None, None
        self.length, self.digest = 0, hashlib.sha256()
        self.body = b""
        self.reset = None
        self.done = asyncio.Event()

    @property
    def status(self):
        return self.head and int(dict(self.head)[b":status"])


class Client(QuicConnectionProtocol):
    """One connection."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.h3 = None
        self.responses = {}
        self.ended = None
        self.gone = asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated) and self.h3 is None:
            self.h3 = H3Connection(self._quic)
        if isinstance(event, ConnectionTerminated):
            self.ended = event
            self.gone.set()
            for response in self.responses.values():
                response.done.set()
        if isinstance(event, StreamReset) and event.stream_id in self.responses:
            response = self.responses[event.stream_id]
            response.reset = event.error_code
            response.done.set()
        for event in self.h3.handle_event(event) if self.h3 else []:
            response = self.responses.get(getattr(event, "stream_id", None))
            if response is None:
                continue
            if isinstance(event, HeadersReceived):
                if response.head is not None:
                    response.trailers = event.headers
                elif dict(event.headers)[b":status"].startswith(b"1"):
                    response.interim.append(event.headers)
                else:
                    response.head = event.headers
            if isinstance(event, DataReceived):
                response.length += len(event.data)
                response.digest.update(event.data)
                response.body = (response.body + event.data)[:4096]
            if event.stream_ended:
                response.done.set()

    def begin(self, method, path, fields=(), end=True, authority=b"localhost"):
        """Sends the head of a request. Returns its stream and its response."""
        stream = self._quic.get_next_available_stream_id()
        response = self.responses[stream] = Response()
        if self.gone.is_set():  # nothing will arrive, so there is nothing to wait for
            response.done.set()
        head = [(b":method", method.encode()), (b":scheme", b"https"), (b":authority", authority),
                (b":path", path.encode()), *fields]
        self.h3.send_headers(stream, head, end_stream=end)
        self.transmit()
        return stream, response

    async def ask(self, path, method="GET", fields=(), body=None, trailers=None, seconds=60):
        """Sends a request, and waits for its whole response."""
        stream, response = self.begin(method, path, fields, end=body is None and trailers is None)
        if body is not None:
            self.h3.send_data(stream, body, end_stream=trailers is None)
        if trailers is not None:
            self.h3.send_headers(stream, trailers, end_stream=True)
        self.transmit()
        await asyncio.wait_for(response.done.wait(), seconds)
        return response


@asynccontextmanager
async def client(port, ticket=None, keep_ticket=None, keep_token=None, early=False, name="localhost",
                 host="127.0.0.1", **options):
    """A connection to the proxy."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE,
                                      server_name=name, **options)
    configuration.session_ticket = ticket
    async with connect(host, port, configuration=configuration, create_protocol=Client,
                       session_ticket_handler=keep_ticket, token_handler=keep_token,
                       wait_connected=not early) as connection:
        if early:
            connection.h3 = H3Connection(connection._quic)
        yield connection


async def await_endpoint(port, host="127.0.0.1"):
    """Waits until an endpoint answers: UDP has nothing that tells when somebody listens."""
    for _ in range(60):
        try:
            async with asyncio.timeout(1), client(port, host=host) as it:
                await it.ask("/hello")
                return
        except (ConnectionError, asyncio.TimeoutError):
            pass
    raise AssertionError(f"nobody speaks HTTP/3 on port {port}")


def expect(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")


async def messages(port):
    async with client(port) as it:
        hello = await it.ask("/hello")
        expect("GET", (hello.status, hello.body), (200, b"/hello"))
        body = bytes(range(256)) * 4000
        posted = await it.ask("/sum", method="POST", body=body)
        expect("POST", posted.body.decode(), f"{len(body)} {hashlib.sha256(body).hexdigest()}")
        trailed = await it.ask("/trailers")
        expect("trailers", trailed.trailers, [(b"x-sum", b"7")])
        hinted = await it.ask("/hints")
        expect("103", [dict(head)[b":status"] for head in hinted.interim], [b"103"])
        expect("after 103", hinted.body, b"hinted")
        sent = await it.ask("/sum", method="POST", body=b"abc", trailers=[(b"x-t", b"1")])
        expect("request with trailers", sent.body.split()[0], b"3")


async def through_proxy(port):
    """What each endpoint of HTTP/3 answers, through a proxy."""
    async with client(port) as it:
        expect("GET", (await it.ask("/hello")).body, b"/hello")
        answers = await asyncio.gather(*(it.ask(f"/bytes/{1000 + n}") for n in range(60)))
        expect("60 streams", [answer.length for answer in answers], [1000 + n for n in range(60)])
        body = bytes(range(256)) * 8000
        posted = await it.ask("/sum", method="POST", body=body)
        expect("POST", posted.body.decode(), f"{len(body)} {hashlib.sha256(body).hexdigest()}")
        expect("trailers", (await it.ask("/trailers")).trailers, [(b"x-sum", b"7")])
        expect("10 MB", (await it.ask("/bytes/10000000")).length, 10_000_000)


async def hundred_streams(port):
    async with client(port) as it:
        answers = await asyncio.gather(*(it.ask(f"/bytes/{1000 + n}") for n in range(100)))
        expect("100 streams", [answer.length for answer in answers], [1000 + n for n in range(100)])


async def more_streams(port):
    """A client that uses the streams that it may open at first may open more."""
    async with client(port) as it:
        await it.ask("/hello")
        at_first = it._quic._remote_max_streams_bidi
        expect("few streams at first", at_first < 60, True)
        waiting = [it.begin("POST", "/sum", end=False)[0] for _ in range(12)]
        async with asyncio.timeout(10):
            while it._quic._remote_max_streams_bidi < 100:
                await it.ping()
        for stream in waiting:
            it._quic.reset_stream(stream, 0x10c)
        it.transmit()


async def priorities(port):
    """A response of low urgency waits for a large one, until PRIORITY_UPDATE makes it urgent.

    It need not wait while the large one has nothing to send, as when its origin is not scheduled, and its data keeps
    its place in the queue if the update is late. So each order has three tries. Fair turns would never send the small
    one after 7 MB of the large one.
    """
    for case in (low_urgency, made_urgent, early_update):
        seen = []
        for _ in range(3):
            async with client(port) as it:
                seen.append(await case(it))
            if seen[-1] is True:
                break
        else:
            raise AssertionError(f"{case.__name__}: the small response came after {seen} bytes of the large one")


async def large_response(it):
    """Begins a large response, and returns it when 3 of its 30 MB are here."""
    _, response = it.begin("GET", "/bytes/30000000", [(b"priority", b"u=1")])
    while response.length < 3_000_000:
        await asyncio.sleep(0.01)
    return response


def send_priority(it, stream, value):
    payload = encode_uint_var(stream) + value
    it._quic.send_stream_data(it.h3._local_control_stream_id,
                              encode_uint_var(0xf0700) + encode_uint_var(len(payload)) + payload)
    it.transmit()


async def low_urgency(it):
    first = await large_response(it)
    await it.ask("/bytes/1000", fields=[(b"priority", b"u=7, i")])
    return first.length >= 10_000_000 or first.length


async def made_urgent(it):
    first = await large_response(it)
    stream, waiting = it.begin("GET", "/bytes/1000", [(b"priority", b"u=7")])
    send_priority(it, stream, b"u=0")
    await waiting.done.wait()
    return not first.done.is_set() or first.length


async def early_update(it):
    """The update arrives before its request."""
    first = await large_response(it)
    send_priority(it, it._quic.get_next_available_stream_id(), b"u=7")
    await it.ping()
    await it.ask("/bytes/1000")
    return first.length >= 10_000_000 or first.length


async def key_update(port):
    async with client(port) as it:
        for n in range(3):
            it._quic.request_key_update()
            answer = await it.ask(f"/after/{n}")
            expect("key update", answer.status, 200)


async def migration(port, changes_id=True):
    async with client(port) as it:
        expect("before", (await it.ask("/a")).status, 200)
        loop = asyncio.get_running_loop()
        # A new socket: the address of the client changes, as with another network.
        transport, _ = await loop.create_datagram_endpoint(lambda: it, local_addr=("::", 0))
        it._transport = transport
        if changes_id:
            it._quic.change_connection_id()
        for n in range(20):
            expect("after the move", (await it.ask(f"/moved/{n}")).status, 200)
        transport.close()


async def nat_rebinding(port):
    await migration(port, changes_id=False)


async def version_negotiation(port):
    from aioquic.quic.packet import QuicProtocolVersion
    async with client(port, supported_versions=[0x1A2A3A4A, QuicProtocolVersion.VERSION_1],
                      original_version=0x1A2A3A4A) as it:
        expect("after a version negotiation", (await it.ask("/v")).status, 200)


async def resumption(port):
    tickets = []
    async with client(port, keep_ticket=tickets.append) as it:
        await it.ask("/first")
        await asyncio.wait_for(wait_until(lambda: tickets), 5)
    async with client(port, ticket=tickets[0]) as it:
        expect("resumed", (it._quic.tls.session_resumed, (await it.ask("/again")).status), (True, 200))
    expect("early data offered", tickets[0].max_early_data_size, None)


async def early_data(port):
    """Requests in the first datagrams: each is answered, and the session is accepted once."""
    tickets, tokens = [], []
    async with client(port, keep_ticket=tickets.append, keep_token=tokens.append) as it:
        await it.ask("/first")
        await asyncio.wait_for(wait_until(lambda: tickets and tokens), 5)
    expect("early data offered", tickets[0].max_early_data_size, 0xFFFFFFFF)
    for accepted in (True, False):
        async with client(port, ticket=tickets[0], token=tokens[0], early=True) as it:
            get, post = it.ask("/fields", seconds=5), it.ask("/sum", method="POST", body=b"abc", seconds=5)
            get, post = asyncio.create_task(get), asyncio.create_task(post)
            await it.wait_connected()
            expect("accepted", it._quic.tls.early_data_accepted, accepted)
            if accepted:
                expect("GET", (await get).status, 200)
                expect("POST", (await post).body.split()[0], b"3")
                marked = "early-data: 1" in (await get).body.decode().lower()
                print(f"  aioquic: 0-RTT accepted once, {'with' if marked else 'without'} early-data: 1")
            else:  # aioquic does not send it again
                get.cancel()
                post.cancel()
                it.h3 = None


async def wait_until(holds):
    while not holds():
        await asyncio.sleep(0.01)


CASES = [messages, priorities, hundred_streams, more_streams, key_update, migration, nat_rebinding, version_negotiation, resumption]
