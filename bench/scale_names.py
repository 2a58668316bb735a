"""A DNS server whose answers the benchmark changes, and the HTTP server at all its addresses."""

import collections
import http.server
import os
import socket
import subprocess
import tempfile
import threading
import time

TYPE_A, CLASS_IN = 1, 1
ANSWER = 0x8400
TTL_S = 1
# How long the server holds a query back for a change. After that it gives the same answer as before.
HOLD_S = 0.7
TICK_S = 0.05
# The answers have addresses from 127.200.0.1 on. All of them are loopback addresses.
PREFIX = "127.200"


class Names:
    """Answers queries for the addresses of `d0.scale.test`, `d1.scale.test` and on.

    A change is given as the answer to a query that was held back. The proxy asks for each name once in
    a TTL, so the number of names limits the number of changes per second.
    """

    def __init__(self, addresses):
        #: The number of addresses in an answer. A change replaces one of them.
        self.addresses = addresses
        self.current = {}
        #: The name and the new address of the last change.
        self.last = None
        self.counter = 0
        self.held = collections.deque()
        self.hold = False
        self.lock = threading.Condition()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        self.socket.settimeout(TICK_S)
        self.open = True
        self.threads = [threading.Thread(target=work, daemon=True)
                        for work in (self._receive, self._expire)]
        for thread in self.threads:
            thread.start()

    def change(self, timeout_s=10):
        """Changes the addresses of one name; returns the name and its new address."""
        deadline = time.monotonic() + timeout_s
        with self.lock:
            self.hold = True
            while not self.held:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise RuntimeError("the proxy has sent no DNS query")
                self.lock.wait(left)
            _, name, query, peer = self.held.popleft()
            new = self._next()
            self.current[name] = self.current[name][1:] + [new]
            self._answer(name, query, peer)
            self.last = name, new
        return name, new

    def rest(self):
        """Answers all queries at once, with the same addresses as before."""
        with self.lock:
            self.hold = False
            while self.held:
                self._answer(*self.held.popleft()[1:])

    def close(self):
        """Ends the threads and frees the port."""
        self.open = False
        for thread in self.threads:
            thread.join()
        self.socket.close()

    def _next(self):
        self.counter += 1
        return f"{PREFIX}.{self.counter >> 8 & 255}.{self.counter & 255}"

    def _receive(self):
        while self.open:
            try:
                query, peer = self.socket.recvfrom(4096)
            except TimeoutError:
                continue
            name, kind, _ = question(query)
            with self.lock:
                if name not in self.current:
                    self.current[name] = [self._next() for _ in range(self.addresses)]
                if kind == TYPE_A and self.hold:
                    self.held.append((time.monotonic(), name, query, peer))
                    self.lock.notify()
                else:
                    self._answer(name, query, peer)

    def _expire(self):
        while self.open:
            time.sleep(TICK_S)
            with self.lock:
                while self.held and self.held[0][0] + HOLD_S < time.monotonic():
                    self._answer(*self.held.popleft()[1:])

    def _answer(self, name, query, peer):
        _, kind, end = question(query)
        addresses = self.current[name] if kind == TYPE_A else []
        head = query[:2] + ANSWER.to_bytes(2, "big")
        head += b"".join(n.to_bytes(2, "big") for n in (1, len(addresses), 0, 0))
        # The name of the record is a pointer to the name in the question (RFC 1035 4.1.4).
        fixed = b"\xc0\x0c" + TYPE_A.to_bytes(2, "big") + CLASS_IN.to_bytes(2, "big")
        fixed += TTL_S.to_bytes(4, "big") + (4).to_bytes(2, "big")
        records = b"".join(fixed + socket.inet_aton(address) for address in addresses)
        self.socket.sendto(head + query[12:end] + records, peer)


def question(query):
    """Returns the name and the type that a query asks for, and the offset of the end of its question."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    return ".".join(labels), int.from_bytes(query[at + 1:at + 3], "big"), at + 5


def use_this_resolver():
    """Makes this process and its children use the DNS server 127.0.0.1: mounts another /etc/resolv.conf
    in their mount namespace."""
    with tempfile.NamedTemporaryFile("w", prefix="ringway-resolv-", delete=False) as file:
        file.write("nameserver 127.0.0.1\noptions timeout:5 attempts:2\n")
    os.chmod(file.name, 0o644)
    command = ["mount", "--bind", file.name, os.path.realpath("/etc/resolv.conf")]
    done = subprocess.run(command, capture_output=True, text=True)
    os.unlink(file.name)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class _WhichAddress(http.server.BaseHTTPRequestHandler):
    """Answers with the local address of the connection."""

    def do_GET(self):
        body = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve_addresses(port):
    """Starts the HTTP server that the names lead to."""
    server = http.server.ThreadingHTTPServer(("0.0.0.0", port), _WhichAddress)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
