"""Ports of test servers on loopback."""

import os
import socket
import time

# The ports to try. Each process begins at another one, and tries none twice.
ports = (12000 + (os.getpid() * 97 + number) % 20000 for number in range(20000))


def free_port():
    """A port that nobody listens on, below those that Linux gives to outgoing connections."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise SystemExit("no port is free")


def await_port(port):
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def await_refusal(port, seconds=10):
    """Waits until nobody listens. The kernel closes the sockets of a killed process with an io_uring only after the
    process is gone, and until then clients connect to them and are reset."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            return
        except OSError:
            pass
        time.sleep(0.01)
    raise SystemExit(f"somebody still listens on port {port}")
