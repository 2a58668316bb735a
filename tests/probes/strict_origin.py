#!/usr/bin/env python3
"""A strict HTTP/1.1 origin that records every request.

  strict_origin.py PORT LOG

LOG gets one JSON object per request: the connection, the request line, the fields, the body's length
and the trailers. A request that breaks the grammar of HTTP has a "bad" member with the reason; the
origin answers it with 400 and closes the connection. A connection that closes in the middle of a body
is "cut".

  /bytes/N     N octets with a Content-Length
  /chunked/N   N octets in chunks, and a trailer
  /status/N    that status
  /slow/MS     the answer after so many milliseconds
  other paths  the record as JSON
"""

import asyncio
import itertools
import json
import re
import sys

HEAD_BYTES_MAX = 256 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024
SLOW_MS_MAX = 30_000
BODY_KEPT_BYTES = 300
CHUNK_BYTES = 4096

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\x00-\x08\x0a-\x1f\x7f]*)?")

connection_numbers = itertools.count(1)


class Malformed(Exception):
    """The request breaks the grammar; the message is the reason."""


class Request:
    """One parsed request."""

    def __init__(self, head):
        lines = head.split(b"\r\n")
        self.line = lines[0].decode("latin1")
        self.fields, self.trailers, self.body = [], [], b""
        match = REQUEST_LINE.fullmatch(lines[0])
        if not match:
            raise Malformed("request line")
        self.method, self.target = match[1].decode(), match[2].decode()
        self.is_http_1_0 = match[3] == b"0"
        self.fields = [parse_field(line) for line in lines[1:]]
        if not self.is_http_1_0 and len(self.values("host")) != 1:
            raise Malformed("not exactly one Host")

    def values(self, name):
        """The values of all fields with this name."""
        return [value for field, value in self.fields if field.lower() == name]

    def body_length(self):
        """The length of the body; None when it comes in chunks."""
        codings, lengths = self.values("transfer-encoding"), self.values("content-length")
        if codings and lengths:
            raise Malformed("Transfer-Encoding and Content-Length")
        if codings:
            if [coding.lower() for coding in codings] != ["chunked"]:
                raise Malformed(f"Transfer-Encoding {codings}")
            return None
        if len(lengths) > 1 or not all(re.fullmatch(r"[0-9]+", length) for length in lengths):
            raise Malformed(f"Content-Length {lengths}")
        return int(lengths[0]) if lengths else 0

    def closes(self):
        """Whether the connection ends after this request."""
        options = ",".join(self.values("connection")).lower()
        return self.is_http_1_0 or "close" in options

    def path(self):
        """The target without scheme and authority."""
        return re.sub(r"^[a-z]+://[^/]*", "", self.target)


def parse_field(line):
    """Name and value of a field line."""
    match = FIELD.fullmatch(line)
    if not match:
        raise Malformed(f"field line {line[:100]!r}")
    return match[1].decode(), match[2].rstrip(b" \t").decode("latin1")


async def read_line(reader):
    """The next line without its CRLF; a bare CR or LF is not a line's end."""
    return (await reader.readuntil(b"\r\n"))[:-2]


async def read_body(reader, request):
    """Reads the body, and the trailers of a chunked one, into `request`."""
    length = request.body_length()
    if length is not None:
        request.body = await reader.readexactly(length)
        return
    while True:
        line = await read_line(reader)
        match = CHUNK.fullmatch(line)
        if not match:
            raise Malformed(f"chunk line {line[:100]!r}")
        size = int(match[1], 16)
        if size == 0:
            break
        request.body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise Malformed("end of a chunk")
    while line := await read_line(reader):
        request.trailers.append(parse_field(line))


def respond(request, status, text):
    """The bytes of a response."""
    head = [f"HTTP/1.1 {status} Status", "Content-Type: application/json", "X-Origin: strict"]
    if request.closes():
        head.append("Connection: close")
    if status in (204, 304) or 100 <= status < 200:
        return ("\r\n".join(head) + "\r\n\r\n").encode()
    chunked = request.path().startswith("/chunked/")
    if chunked:
        head += ["Transfer-Encoding: chunked", "Trailer: x-end"]
        pieces = [text[at:at + CHUNK_BYTES] for at in range(0, len(text), CHUNK_BYTES)]
        text = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        text += b"0\r\nx-end: yes\r\n\r\n"
    else:
        head.append(f"Content-Length: {len(text)}")
    body = b"" if request.method == "HEAD" else text
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


class Origin:
    """The listening origin and its log."""

    def __init__(self, log):
        self.log = open(log, "a", buffering=1)

    def record(self, connection, **what):
        """Writes one record and returns it."""
        record = {"conn": connection, **what}
        self.log.write(json.dumps(record) + "\n")
        return record

    async def connection(self, reader, writer):
        """Serves one connection until it ends or a request is bad."""
        number = next(connection_numbers)
        try:
            while await self.exchange(number, reader, writer):
                pass
        except asyncio.LimitOverrunError:
            self.record(number, bad="line or head too long")
        except ConnectionError:
            self.record(number, bad="cut")
        finally:
            writer.close()

    async def exchange(self, number, reader, writer):
        """One request and its response; whether another may follow."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raw = error.partial[:BODY_KEPT_BYTES].decode("latin1")
                self.record(number, bad="partial head", raw=raw)
            return False
        except ConnectionError:
            return False
        try:
            request = Request(head)
            if "100-continue" in [value.lower() for value in request.values("expect")]:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await read_body(reader, request)
        except Malformed as error:
            line = head.split(b"\r\n")[0].decode("latin1")
            record = self.record(number, line=line, bad=str(error), raw=head.decode("latin1"))
            text = json.dumps(record).encode()
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"
                         b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
            await writer.drain()
            return False
        except asyncio.IncompleteReadError:
            self.record(number, bad="cut")
            return False
        record = self.record(number, line=request.line, headers=request.fields,
                             body_len=len(request.body), trailers=request.trailers,
                             body=request.body[:BODY_KEPT_BYTES].decode("latin1"))
        await self.answer(writer, request, json.dumps(record).encode())
        return not request.closes()

    async def answer(self, writer, request, text):
        """Sends the response that the path asks for; `text` is the record."""
        status = 200
        if match := re.match(r"/(bytes|chunked|status|slow)/([0-9]+)", request.path()):
            kind, number = match[1], int(match[2])
            if kind == "status":
                status = number
            elif kind == "slow":
                await asyncio.sleep(min(number, SLOW_MS_MAX) / 1000)
            else:
                text = b"x" * min(number, BODY_BYTES_MAX)
        writer.write(respond(request, status, text))
        await writer.drain()


async def main():
    port, log = int(sys.argv[1]), sys.argv[2]
    server = await asyncio.start_server(Origin(log).connection, "127.0.0.1", port,
                                        limit=HEAD_BYTES_MAX, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
