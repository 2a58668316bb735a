"""Node.js (grpc-js) as client and as server, with grpcio on the other side: directly, and through two proxies with
mutual TLS between them."""

import os
import subprocess
import sys

import cases

HERE = os.path.dirname(os.path.abspath(__file__))
NODE = os.path.join(HERE, "node")
PACKAGES = os.path.join(os.path.dirname(os.path.dirname(HERE)), "target", "tools", "node", "node_modules")
ENVIRONMENT = {**os.environ, "NODE_PATH": PACKAGES, "PYTHONPATH": HERE}
SERVERS = {"grpcio": [sys.executable, os.path.join(HERE, "server.py")],
           "grpc-js": ["node", os.path.join(NODE, "server.js")]}
LIMIT_S = 600


def by_node(port, ca):
    """Runs all cases of client.js. Returns the failures."""
    command = ["node", os.path.join(NODE, "client.js"), f"127.0.0.1:{port}", *([ca] if ca else [])]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT_S)
    failed = [text.strip() for text in done.stdout.split("!! ")[1:]]
    if done.returncode and not failed:
        failed.append(done.stdout + done.stderr)
    return failed


def two_proxies(world, name, endpoint, secure):
    """Starts a proxy for the client and one for the server. With `secure` both ends use TLS, too. Returns the port."""
    own = f"cert: {world.certificate}, key: {world.key}"
    to_server = f", tls: {{ca: {world.ca}, sni: localhost}}" if secure else ""
    _, inner, _ = world.proxy(f", tls: {{{own}, client_ca: {world.ca}}}",
                              f"protocol: grpc, endpoints: ['127.0.0.1:{endpoint}']{to_server}", f"{name}, inner")
    front = f", tls: {{{own}}}" if secure else ""
    to_inner = f"protocol: grpc, endpoints: ['127.0.0.1:{inner}'], tls: {{ca: {world.ca}, sni: localhost, {own}}}"
    _, port, _ = world.proxy(front, to_inner, f"{name}, outer")
    return port


def refuses_strangers(world, endpoint):
    """The proxy of the server takes no client without a certificate: else the ways would show nothing."""
    own = f"cert: {world.certificate}, key: {world.key}"
    _, inner, _ = world.proxy(f", tls: {{{own}, client_ca: {world.ca}}}",
                              f"protocol: grpc, endpoints: ['127.0.0.1:{endpoint}']", "strangers, inner")
    to_inner = f"protocol: grpc, endpoints: ['127.0.0.1:{inner}'], tls: {{ca: {world.ca}, sni: localhost}}"
    _, port, _ = world.proxy("", to_inner, "strangers, outer")
    with cases.channel(f"127.0.0.1:{port}") as channel:
        cases.fails(lambda: cases.stub_of(channel).Unary(cases.Message()), cases.grpc.StatusCode.UNAVAILABLE)


def ways(world):
    """Each way: its name, the language of the client, and the port and the CA for the client."""
    for secure in (False, True):
        ends = "TLS" if secure else "plain"
        ca = world.ca if secure else None
        for language, program in SERVERS.items():
            _, *ports = world.server(program, ENVIRONMENT)
            through = two_proxies(world, f"{language}, {ends}", ports[secure], secure)
            if language == "grpc-js":
                yield f"grpc-js to grpc-js, {ends}, direct", "grpc-js", ports[secure], ca
            for client in ("grpc-js", "grpcio"):
                yield f"{client} to {language}, {ends}, two proxies with mTLS between", client, through, ca
