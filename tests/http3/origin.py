"""An HTTP/1.1 origin for the HTTP/3 clients: `python origin.py PORT`.

  /bytes/N     a body of N bytes: the numbers 0 to 250, again and again
  /sum         the length and the SHA-256 of the request body
  /trailers    a chunked response with the trailer `x-sum: 7`
  /hints       103 with a `link`, then 200
  /fields      the field lines of the request, as text
  /never       a response head, and then nothing
"""

import hashlib
import itertools
import socketserver
import sys

BLOCK = bytes(range(251)) * 261


def pattern(length):
    """Parts of the body of /bytes/N. Each part but the last is one BLOCK, so the pattern goes on."""
    for start in range(0, length, len(BLOCK)):
        yield BLOCK[: min(len(BLOCK), length - start)]


class Handler(socketserver.StreamRequestHandler):
    """One connection. Requests follow each other on it."""

    def handle(self):
        while True:
            line = self.rfile.readline()
            if not line.strip():
                return
            method, target, _ = line.decode().split()
            fields = list(itertools.takewhile(lambda field: field.strip(), iter(self.rfile.readline, b"")))
            named = {name.lower(): value.strip() for name, _, value in (f.decode().partition(":") for f in fields)}
            self.answer(method, target, fields, self.body(named))

    def body(self, named):
        """The parts of the request's body."""
        if named.get("transfer-encoding", "").lower() == "chunked":
            while (length := int(self.rfile.readline().split(b";")[0], 16)) > 0:
                yield self.rfile.read(length)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        left = int(named.get("content-length", 0))
        while left > 0:
            part = self.rfile.read(min(left, 65536))
            left -= len(part)
            yield part

    def answer(self, method, target, fields, body):
        if target == "/sum":
            total, digest = 0, hashlib.sha256()
            for part in body:
                total += len(part)
                digest.update(part)
            return self.text(f"{total} {digest.hexdigest()}")
        for _ in body:
            pass
        if target.startswith("/bytes/"):
            length = int(target.split("/")[2])
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length)
            for part in pattern(length) if method != "HEAD" else []:
                self.wfile.write(part)
        elif target == "/trailers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
                             b"5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n")
        elif target == "/hints":
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n")
            self.text("hinted")
        elif target == "/never":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
            self.rfile.read(1)
        else:
            self.text(b"".join(fields).decode() if target == "/fields" else target)

    def text(self, text):
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text.encode()))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    request_queue_size = 256


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()
