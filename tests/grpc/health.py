"""Ringway's gRPC health checks, with servers that serve grpc.health.v1 of grpcio."""

import json
import queue
import urllib.request
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import cases
import server
from peers import free_port

SERVICE = "probe.Probe"


class Server:
    """A server in this process. With `has_health` it reports the statuses that `says` sets."""

    def __init__(self, world=None, has_health=True):
        self.server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
        server.services.add_ProbeServicer_to_server(server.Probe(), self.server)
        self.health = health.HealthServicer()
        if has_health:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        address = f"127.0.0.1:{free_port()}"
        if world is None:
            self.port = self.server.add_insecure_port(address)
        else:
            with open(world.key, "rb") as key, open(world.certificate, "rb") as certificate:
                pair = (key.read(), certificate.read())
            self.port = self.server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        self.says("SERVING")
        self.server.start()

    def says(self, status, service=""):
        self.health.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))

    def stop(self):
        self.server.stop(0).wait()


class Watched:
    """A proxy that checks servers, and the states of the endpoints in its admin API."""

    def __init__(self, world, name, servers, check, more=""):
        self.admin = free_port()
        ports = [f"127.0.0.1:{each.port}" for each in servers]
        service = f"protocol: grpc, endpoints: {ports}, health_check: {{{check}, interval: 50ms}}{more}"
        _, self.port, _ = world.proxy("", service, name, admin=f"127.0.0.1:{self.admin}")

    def endpoints(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/services", timeout=cases.PATIENCE_S) as page:
            services = json.load(page)
        # The listener accepts connections before the page shows the first configuration.
        return services[0]["endpoints"] if services else []

    def await_states(self, *states, why=None):
        def reached():
            found = [endpoint["health"] for endpoint in self.endpoints()]
            last = (found[0]["last_failure"] or "") if found else ""
            return [each["state"] for each in found] == list(states) and (why is None or why in last)

        cases.eventually(f"{states}, {why}; now {self.endpoints()}", reached)


def statuses(world):
    """Checks each status of the whole server and of one service, in the clear and through TLS."""
    for secure in (False, True):
        tls = f", tls: {{ca: {world.ca}, sni: localhost}}" if secure else ""
        for service in ("", SERVICE):
            asked = Server(world if secure else None)
            asked.says("SERVING", service)
            check = f"grpc: {{service: {service}}}" if service else "grpc: true"
            watched = Watched(world, f"health-{secure}-{service}", [asked], check, tls)
            watched.await_states("healthy")
            for status in ("NOT_SERVING", "UNKNOWN", "SERVICE_UNKNOWN"):
                asked.says(status, service)
                watched.await_states("unhealthy", why=f"it says {status}")
                asked.says("SERVING", service)
                watched.await_states("healthy")
            asked.stop()
            watched.await_states("unhealthy", why="refused")


def what_is_not_served_is_explained(world):
    without, other = Server(has_health=False), Server()
    Watched(world, "no-health", [without], "grpc: true").await_states("unhealthy", why="UNIMPLEMENTED")
    watched = Watched(world, "not-found", [other], "grpc: {service: other.Service}")
    watched.await_states("unhealthy", why='"other.Service" (NOT_FOUND)')
    without.stop()
    other.stop()


def calls_avoid_who_does_not_serve(world, callers_of):
    """One of two servers reports NOT_SERVING again and again. No call fails, an open stream to it goes on, and it gets
    no new call while it reports that."""
    one, two = Server(), Server()
    watched = Watched(world, "avoided", [one, two], "grpc: true", ", balance: round-robin")
    watched.await_states("healthy", "healthy")
    callers = callers_of(f"ipv4:127.0.0.1:{watched.port}")
    try:
        with cases.channel(f"ipv4:127.0.0.1:{watched.port}") as channel:
            chats = [Chat(cases.stub_of(channel)) for _ in range(4)]
            for _ in range(3):
                callers.progress()
                one.says("NOT_SERVING")
                watched.await_states("unhealthy", "healthy")
                callers.progress(3)  # calls that were on their way to this server have ended
                before = watched.endpoints()
                callers.progress(10)
                after = watched.endpoints()
                cases.equal(after[0]["requests"], before[0]["requests"], "requests of the one that does not serve")
                if after[1]["requests"] <= before[1]["requests"]:
                    raise AssertionError("no requests of the one that serves")
                for chat in chats:
                    chat.goes_on()
                one.says("SERVING")
                watched.await_states("healthy", "healthy")
            for chat in chats:
                chat.ends()
    finally:
        callers.stop()
        one.stop()
        two.stop()
    return callers


class Chat:
    """A stream that stays open, with messages in both directions."""

    def __init__(self, stub):
        self.said = queue.Queue()
        self.answers = stub.Chat(iter(self.said.get, None), timeout=10 * cases.PATIENCE_S)
        self.goes_on()

    def goes_on(self):
        self.said.put(cases.Message(count=7))
        cases.equal(next(self.answers).count, 7, "the answer on a stream that was there before")

    def ends(self):
        self.said.put(None)
        cases.equal(list(self.answers), [], "what is left of it")
