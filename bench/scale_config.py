"""A large configuration: many services with their endpoints, many routes, little traffic."""

import os

FILES = 10
ENDPOINTS_EACH = 10
#: Nothing listens there.
DEAD_PORT = 7
#: The host whose answer is the number of the configuration.
MARKER = "marker.scale.test"


class Size:
    """How large the configuration is, and how much is done with it."""

    def __init__(self, services, reloads, changes, tunnels, burst_s):
        self.services = services
        self.reloads = reloads
        self.changes = changes
        self.tunnels = tunnels
        self.burst_s = burst_s

    def __str__(self):
        endpoints = self.services * ENDPOINTS_EACH
        return (f"{self.services} services with {endpoints} endpoints and"
                f" {self.services} routes")


FULL = Size(services=10_000, reloads=20, changes=20, tunnels=1000, burst_s=30)
QUICK = Size(services=1000, reloads=3, changes=4, tunnels=40, burst_s=3)


def write(directory, size, ports, names):
    """Writes the files of the configuration. `names` is the number of services that use DNS."""
    os.makedirs(directory)
    text = MAIN
    for name, port in ports.items():
        text = text.replace(f"@{name}@", str(port))
    put(directory, "main.yaml", text)
    found = range(names)
    services = [f"  d{i}: {{protocol: http1, dns: 'd{i}.scale.test:{ports['which']}'}}"
                for i in found]
    routes = [f"  d{i}.scale.test: [{{to: d{i}}}]" for i in found]
    put(directory, "names.yaml", "\n".join(["routes:", *routes, "services:", *services]) + "\n")
    mark(directory, 0)
    each = -(-size.services // FILES)
    for number in range(FILES):
        part = range(number * each, min((number + 1) * each, size.services))
        routes = [f"  s{i}.scale.test: [{{to: s{i}}}]" for i in part]
        services = [f"  s{i}: {{endpoints: [{', '.join(endpoints(i))}]}}" for i in part]
        text = "\n".join(["routes:", *routes, "services:", *services]) + "\n"
        put(directory, f"part-{number}.yaml", text)


def endpoints(service):
    first = service * ENDPOINTS_EACH
    for number in range(first, first + ENDPOINTS_EACH):
        yield f"127.{2 + (number >> 16)}.{number >> 8 & 255}.{number & 255}:{DEAD_PORT}"


def mark(directory, number):
    """Changes one file. When the change is applied, the response for MARKER has `number`."""
    text = f"routes:\n  {MARKER}: [{{respond: {{status: 200, body: 'mark {number}'}}}}]\n"
    put(directory, "marker.yaml", text)


def put(directory, name, text):
    """Writes a file atomically: a reload reads the old or the new text, never a part of it."""
    path = os.path.join(directory, name)
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


MAIN = """\
runtime: {workers: 1}
admin: {bind: 127.0.0.1:@admin@}
listeners:
  web: {bind: 127.0.0.1:@http@}
  tunnels: {bind: 127.0.0.1:@tunnels@, protocol: tcp, service: echo}
routes:
  "*": [{to: real}]
services:
  real: {protocol: http1, endpoints: [127.0.0.1:@backend_http@]}
  echo: {protocol: tcp, endpoints: [127.0.0.1:@backend_echo@]}
"""
