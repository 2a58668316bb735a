"""HTTP/2 connections that are opened and then stay idle."""

import socket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
#: GET / with scheme http, from the static table, and the authority as a literal (RFC 7541 6.2.1).
REQUEST = b"\x82\x86\x84\x41\x04idle"
# Connections that are opened at the same time, as by the load generator's --idle.
OPENING_MAX = 250


class Connection:
    """One connection; with `request` its first stream asks for /."""

    def __init__(self, address, request):
        self.socket = socket.create_connection(address, timeout=10)
        self.request = request
        first = frame(HEADERS, END_STREAM | END_HEADERS, 1, REQUEST) if request else b""
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + first)

    def settle(self):
        """Waits for the settings of both sides, and for the answer if there is a request."""
        known = acknowledged = False
        body = b""
        answered = not self.request
        while not (known and acknowledged and answered):
            kind, flags, payload = self.read()
            if kind == SETTINGS and flags & ACK:
                acknowledged = True
            elif kind == SETTINGS:
                known = True
                self.socket.sendall(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                self.socket.sendall(frame(PING, ACK, 0, payload))
            elif kind in (RST_STREAM, GOAWAY):
                raise RuntimeError(f"the proxy has ended an HTTP/2 connection or stream: {payload}")
            elif kind == DATA:
                body += payload
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                answered = True
        if self.request and b"hello" not in body:
            raise RuntimeError(f"the answer over HTTP/2 is not the server's: {body[:80]}")

    def read(self):
        head = self.exactly(9)
        return head[3], head[4], self.exactly(int.from_bytes(head[:3], "big"))

    def exactly(self, count):
        got = b""
        while len(got) < count:
            more = self.socket.recv(count - len(got))
            if not more:
                raise RuntimeError("the proxy has closed an HTTP/2 connection")
            got += more
        return got


def frame(kind, flags, stream, payload):
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def hold(address, count, request):
    """Opens `count` connections. They stay open as long as the result is kept."""
    held = []
    try:
        while len(held) < count:
            opening = min(OPENING_MAX, count - len(held))
            portion = [Connection(address, request) for _ in range(opening)]
            held += portion
            for connection in portion:
                connection.settle()
    except OSError as error:
        release(held)
        raise RuntimeError(f"HTTP/2 connection {len(held)}: {error}") from None
    except RuntimeError:
        release(held)
        raise
    return held


def release(held):
    for connection in held:
        connection.socket.close()
