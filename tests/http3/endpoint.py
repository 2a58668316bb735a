"""aioquic as an endpoint of HTTP/3: `python endpoint.py PORT CERTIFICATE KEY [ADDRESS]`. It answers some paths of
origin.py."""

import asyncio
import hashlib
import sys

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated


class Endpoint(QuicConnectionProtocol):
    """One connection."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.h3, self.requests = None, {}

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.h3 = H3Connection(self._quic)
        for event in self.h3.handle_event(event) if self.h3 else []:
            if isinstance(event, HeadersReceived) and event.stream_id not in self.requests:
                path = dict(event.headers)[b":path"].decode()
                self.requests[event.stream_id] = [path, 0, hashlib.sha256()]
            if isinstance(event, DataReceived):
                request = self.requests[event.stream_id]
                request[1] += len(event.data)
                request[2].update(event.data)
            if event.stream_ended:
                self.answer(event.stream_id, *self.requests.pop(event.stream_id))

    def answer(self, stream, path, length, digest):
        body, trailers = path.encode(), []
        if path.startswith("/bytes/"):
            body = b"x" * int(path.split("/")[2])
        elif path == "/sum":
            body = f"{length} {digest.hexdigest()}".encode()
        elif path == "/trailers":
            body, trailers = b"hello", [(b"x-sum", b"7")]
        self.h3.send_headers(stream, [(b":status", b"200"), (b"server", b"aioquic"),
                                      (b"content-length", str(len(body)).encode())])
        self.h3.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.h3.send_headers(stream, trailers, end_stream=True)
        self.transmit()


async def main(port, certificate, key, address="127.0.0.1"):
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(certificate, key)
    await serve(address, port, configuration=configuration, create_protocol=Endpoint)
    await asyncio.sleep(600)


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
