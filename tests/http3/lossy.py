"""Real clients and endpoints of HTTP/3 over a link that loses, repeats and reorders packets (link.py).

  unshare --net python lossy.py RINGWAY DIRECTORY [long]

The directory has cert.pem, key.pem and ca.pem. The proxy and its origin run in this namespace; the clients and the
endpoints run in another one, on the other side of the link. Each body is compared by its SHA-256, up and down.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path += [HERE, os.path.join(ROOT, "tests/probes")]

import aio  # noqa: E402
from link import FAR, NEAR  # noqa: E402
from origin import pattern  # noqa: E402
from peers import await_port, free_port, spawn, stop_all  # noqa: E402

GO = os.path.join(ROOT, "target/tools/http3-go")
SECONDS = 150
# The percentage, the milliseconds of delay, and the bytes of each body.
QUICK = [(1, 2, 2_000_000), (10, 2, 500_000)]
LONG = [(1, 2, 20_000_000), (10, 2, 4_000_000)]
CONFIG = """
admin: {{bind: "off"}}
runtime: {{workers: 2}}
listeners:
  web: {{bind: "{near}:{web}", tls: {{cert: cert.pem, key: key.pem}}, http3: true}}
  to-python: {{bind: "127.0.0.1:{to_python}"}}
  to-go: {{bind: "127.0.0.1:{to_go}"}}
services:
  app: {{endpoints: ["127.0.0.1:{origin}"]}}
  python: {{protocol: http3, endpoints: ["{far}:{python}"], tls: {{ca: ca.pem, sni: localhost}}}}
  go: {{protocol: http3, endpoints: ["{far}:{go}"], tls: {{ca: ca.pem, sni: localhost}}}}
routes:
  python.example: [{{to: python}}]
  go.example: [{{to: go}}]
  "*": [{{to: app}}]
"""


def digest_of(parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def expect(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")


class Bodies:
    """A body of `length` bytes, and the digests of it and of the one of the endpoints."""

    def __init__(self, length, directory):
        self.length, self.body = length, b"".join(pattern(length))
        self.digest, self.of_endpoints = digest_of([self.body]), digest_of([b"x" * length])
        self.sum = f"{length} {self.digest}"
        self.path = os.path.join(directory, "body")
        with open(self.path, "wb") as file:
            file.write(self.body)


def curl(port, bodies):
    from curl_cffi import CurlHttpVersion, requests
    url = f"https://{NEAR}:{port}"
    with requests.Session(verify=False, timeout=SECONDS, http_version=CurlHttpVersion.V3ONLY) as session:
        expect("down", digest_of([session.get(f"{url}/bytes/{bodies.length}").content]), bodies.digest)
        expect("up", session.post(f"{url}/sum", data=bodies.body).text, bodies.sum)


def aioquic(port, bodies):
    async def both():
        async with aio.client(port, host=NEAR) as it:
            answer = await it.ask(f"/bytes/{bodies.length}", seconds=SECONDS)
            expect("down", answer.digest.hexdigest(), bodies.digest)
            answer = await it.ask("/sum", method="POST", body=bodies.body, seconds=SECONDS)
            expect("up", answer.body.decode(), bodies.sum)
    asyncio.run(both())


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    expect(f"exit code ({done.stdout[-300:]}{done.stderr[-700:]})", done.returncode, 0)


def gtlsclient(port, bodies):
    into = os.path.dirname(bodies.path)
    run("gtlsclient", "--quiet", "--exit-on-all-streams-close", "--download", into, NEAR, str(port),
        f"https://localhost:{port}/bytes/{bodies.length}")
    with open(os.path.join(into, str(bodies.length)), "rb") as file:
        expect("down", digest_of([file.read()]), bodies.digest)
    run("gtlsclient", "--quiet", "--exit-on-all-streams-close", "--download", into, "-m", "POST", "-d", bodies.path,
        NEAR, str(port), f"https://localhost:{port}/sum")
    with open(os.path.join(into, "sum")) as file:
        expect("up", file.read(), bodies.sum)


def quic_go(port, bodies):
    run(GO, "bodies", f"https://{NEAR}:{port}", str(bodies.length), bodies.digest)


CLIENTS = {"curl": curl, "aioquic": aioquic, "gtlsclient": gtlsclient, "quic-go": quic_go}


def through_proxy(host, port, bodies):
    """Asks an endpoint behind the link, over HTTP/1.1 to the proxy."""
    from curl_cffi import requests
    url, headers = f"http://127.0.0.1:{port}", {"host": host}
    with requests.Session(timeout=SECONDS) as session:
        down = session.get(f"{url}/bytes/{bodies.length}", headers=headers)
        expect("down", digest_of([down.content]), bodies.of_endpoints)
        expect("up", session.post(f"{url}/sum", headers=headers, data=bodies.body).text, bodies.sum)


class Sides:
    """The other namespace, the link to it, and all servers."""

    def __init__(self, ringway, directory):
        self.ringway, self.directory = ringway, directory
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.far = subprocess.Popen(["unshare", "--net", "sleep", "900"])
        self.within = ["nsenter", "-t", str(self.far.pid), "-n"]
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(f"/proc/{self.far.pid}/ns/net").st_ino == own:
            time.sleep(0.01)

    def start(self, percent, delay_ms):
        """Starts the link and the servers. Returns their ports."""
        self.link = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "link.py"), str(self.far.pid), "18", str(percent), str(delay_ms)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        expect("the link", self.link.stdout.readline(), "ready\n")
        names = ("web", "to_python", "to_go", "origin", "python", "go")
        ports = {name: free_port() for name in names}
        config = os.path.join(self.directory, f"lossy-{percent}.yaml")
        with open(config, "w") as file:
            file.write(CONFIG.format(near=NEAR, far=FAR, **ports))
        files = [os.path.join(self.directory, name) for name in ("cert.pem", "key.pem")]
        log = lambda name: os.path.join(self.directory, f"lossy-{name}.log")  # noqa: E731
        spawn([sys.executable, os.path.join(HERE, "origin.py"), str(ports["origin"])], log("origin"))
        spawn([*self.within, GO, "serve", f"{FAR}:{ports['go']}", *files], log("go"))
        spawn([*self.within, sys.executable, os.path.join(HERE, "endpoint.py"), str(ports["python"]), *files, FAR],
              log("python"))
        self.proxy = spawn([self.ringway, "run", "-c", config], log("ringway"))
        await_port(ports["origin"])
        await_port(ports["to_go"])
        for endpoint in (ports["go"], ports["python"]):
            asyncio.run(aio.await_endpoint(endpoint, host=FAR))
        return ports

    def end(self):
        """Ends the proxy and the link. Returns the packets that the link carried, lost, repeated and held back."""
        self.proxy.terminate()
        expect("exit code", self.proxy.wait(30), 0)
        said, _ = self.link.communicate("", timeout=10)
        return [int(word) for word in said.split()]


def client_there(sides, name, port, directory, length):
    """Runs a client of this file in the other namespace."""
    os.makedirs(directory, exist_ok=True)
    # It ends the programs that the client has started, too.
    within = ["timeout", str(SECONDS - 5), *sides.within]
    done = subprocess.run([*within, sys.executable, os.path.abspath(__file__), "--client", name, str(port),
                           directory, str(length)], capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise AssertionError(f"{name}: {done.stdout[-500:]}{done.stderr[-1500:]}")


def all_at_once(sides, ports, length):
    """All clients and all endpoints at the same time, because each of them mostly waits. Prints their seconds."""
    def timed(name, work, *arguments):
        began = time.monotonic()
        work(*arguments)
        return f"{name} {time.monotonic() - began:.1f} s"

    bodies = Bodies(length, sides.directory)
    with ThreadPoolExecutor(8) as pool:
        works = [pool.submit(timed, name, client_there, sides, name, ports["web"],
                             os.path.join(sides.directory, f"{name}-{length}"), length) for name in CLIENTS]
        works += [pool.submit(timed, f"to {name}", through_proxy, f"{name}.example", ports[f"to_{name}"], bodies)
                  for name in ("python", "go")]
        return ", ".join(work.result() for work in works)


def main(ringway, directory, length="quick"):
    sides = Sides(ringway, directory)
    try:
        for percent, delay_ms, size in LONG if length == "long" else QUICK:
            ports = sides.start(percent, delay_ms)
            seconds = all_at_once(sides, ports, size)
            carried, *faults = sides.end()
            for what, count in zip(("lost", "repeated", "held back"), faults):
                expect(f"the share of packets {what}", 0.5 < 100 * count / carried / percent < 1.5, True)
            print(f"  {percent} % lost, repeated and late, {size / 1e6:g} MB each way, {carried} packets, of them "
                  f"{faults[0]} lost: {seconds}", flush=True)
    finally:
        sides.far.terminate()
        sides.far.wait()
        stop_all()


if __name__ == "__main__":
    if sys.argv[1] == "--client":
        name, port, directory, length = sys.argv[2:]
        CLIENTS[name](int(port), Bodies(int(length), directory))
    else:
        main(*sys.argv[1:])
