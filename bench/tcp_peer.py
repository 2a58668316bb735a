#!/usr/bin/env python3
"""The ends of the TCP cases, on the CPU of the load: an origin that echoes small messages and
swallows bulk, a client that sends them, and one that holds idle connections.
usage: tcp_peer.py origin PORT | pingpong PORT SECONDS CONNECTIONS | bulk PORT SECONDS | idle PORT COUNT SECONDS"""

import resource
import selectors
import socket
import sys
import time

BLOCK = b"x" * 262144


def serve(port):
    """Echoes what is shorter than a block's tenth, swallows the rest."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    room = bytearray(262144)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(peer, selectors.EVENT_READ)
                continue
            try:
                n = key.fileobj.recv_into(room)
                if 0 < n <= 128:
                    key.fileobj.send(room[:n])
            except OSError:
                n = 0
            if n == 0:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def ping_pong(port, seconds, connections):
    """Prints how many round trips of 64 bytes there were."""
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        peer = socket.create_connection(("127.0.0.1", port))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.send(BLOCK[:64])
        selector.register(peer, selectors.EVENT_READ)
    until, trips = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for key, _ in selector.select(1):
            if len(key.fileobj.recv(128)) < 64:
                sys.exit("short answer")
            trips += 1
            key.fileobj.send(BLOCK[:64])
    print(trips)


def bulk(port, seconds):
    """Prints how many MB were sent."""
    peer = socket.create_connection(("127.0.0.1", port))
    until, sent = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        sent += peer.send(BLOCK)
    print(sent / 1e6)


def idle(port, count, seconds):
    """Opens connections, sends one request on each, and holds them. Prints how many it holds."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    for number in range(count):
        peer = socket.socket()
        # One source address has too few ports for many connections to one place.
        peer.bind((f"127.0.1.{1 + number % 8}", 0))
        peer.connect(("127.0.0.1", port))
        peer.send(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
        if not peer.recv(4096).startswith(b"HTTP/1.1 200"):
            sys.exit("not 200")
        held.append(peer)
    print(len(held), flush=True)
    time.sleep(seconds)


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    numbers = [int(number) for number in numbers]
    {"origin": serve, "pingpong": ping_pong, "bulk": bulk, "idle": idle}[what](*numbers)
