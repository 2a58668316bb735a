"""The cost of interception: the same traffic to a sidecar through kernel rules, and directly.

Every column has its own network namespace, in which the origin and the proxy run. A pair of veth
interfaces connects it to the namespace of the load generator.
"""

import os

from cases import Case
from machine import PROXY_CPU, Host, Process, free_port, run
from proxies import Backend, Instance, render

ONE = Case("intercept-1", "HTTP/1.1, a connection per request, 16 clients", "-c 16 --close",
           unit="connection")
MANY = Case("intercept-64", "HTTP/1.1 keep-alive, 64 connections", "-c 64")
TCP = Case("intercept-tcp", "TCP, a connection per 64 bytes to and fro, 16 clients",
           "--tcp -c 16 --close", listener="echo", unit="connection")
CLOSED = [ONE, MANY, TCP]
#: The name of the measurement of latency, at a rate that all proxies can keep.
RATE = "intercept-rate"
#: The name of the measurement of wakeups of the proxy per connection, with one connection at a time.
WAKEUPS = "intercept-wakeups"
LONE = [Case(WAKEUPS, "woken per HTTP/1.1 connection with one request", "-c 1 --close"),
        Case(WAKEUPS, "woken per TCP connection with 64 bytes to and fro",
             "--tcp -c 1 --close", listener="echo")]
LONE_RATE = 200
#: The cases and their titles.
TITLES = {**{case.name: case.title for case in CLOSED},
          RATE: "latency of these three at a rate that all can keep",
          WAKEUPS: "wakeups per connection, one connection at a time"}
NAMES = list(TITLES)

BARE = "no proxy"
#: The ways to a proxy, and the ways that each proxy supports.
DIRECT, REDIRECT, TPROXY = "direct", "redirect", "tproxy"
WAYS = {"Ringway": (DIRECT, REDIRECT, TPROXY), "Envoy": (DIRECT, REDIRECT)}
#: The rate of the comparison, as a part of the slowest proxy's saturation.
LOAD = 0.5


class Column:
    """A column of the table: a proxy, and the way to it."""

    def __init__(self, proxy, way):
        self.proxy = proxy
        self.way = way
        self.name = f"{proxy.name} {way}" if proxy else BARE
        #: The column that this one is compared with.
        self.base = f"{proxy.name} {DIRECT}" if proxy and way != DIRECT else None


class NoProxy:
    """Stands for the process in the column without a proxy. It uses no CPU time."""

    @staticmethod
    def cpu_us():
        return 0

    @staticmethod
    def wakeups():
        return 0


def columns(found):
    return [Column(None, DIRECT)] + [
        Column(proxy, way) for proxy in found for way in WAYS.get(type(proxy).__name__, ())]


def measure(bench, found, wanted, deadline):
    """Measures all cases that are `wanted`. Returns None when there are none, or no column starts."""
    wanted = [name for name in NAMES if wanted(name)]
    if not wanted:
        return None
    instances = start_all(bench, columns(found))
    if not instances:
        return None
    results = {"cases": {}, "rates": [], "wakeups": [],
               "columns": {i.proxy.name: i.proxy.base for i in instances}}
    for instance in instances:
        bench.load(["-c", "64", instance.url()], 0.2)
    for case in CLOSED:
        if case.name in wanted:
            rows = bench.closed(case, instances, deadline)
            results["cases"][case.name] = {"title": case.title, "unit": case.unit, "rows": rows}
    if RATE in wanted:
        for case in CLOSED:
            results["rates"].append(latency(bench, case, instances, results, deadline))
    if WAKEUPS in wanted:
        for case in LONE:
            rows = bench.at_rate(case, instances, LONE_RATE, deadline)
            results["wakeups"].append({"title": case.title, "rows": rows})
    return results


def tables(results):
    """The tables of the results: pairs of a title and its rows."""
    if not results:
        return []
    found = [(name, case["rows"]) for name, case in results["cases"].items()]
    found += [(f"{RATE}, {rate['title']}", rate["rows"]) for rate in results["rates"]]
    return found + [(lone["title"], lone["rows"]) for lone in results["wakeups"]]


def latency(bench, case, instances, results, deadline):
    """Measures the latency at `LOAD` times the highest rate of the slowest proxy."""
    rows = results["cases"].get(case.name, {}).get("rows")
    if not rows:
        bench.say(f"measuring saturation, for the rate of {case.name}")
        rows = bench.closed(case, instances, deadline)
    slowest = min((row["per_s"] for row in rows.values()), default=0)
    rate = max(round(slowest * LOAD, -2), 100)
    rows = bench.at_rate(case, instances, rate, deadline)
    return {"title": case.title, "unit": case.unit, "rate": rate, "rows": rows}


def start_all(bench, heads):
    """Starts an instance for every column. Returns those that started."""
    instances = []
    for head in heads:
        try:
            instances.append(start(bench, head))
        except RuntimeError as error:
            bench.fail(f"interception, {head.name}: {error}")
    return instances


def start(bench, head):
    """Starts the network namespace of a column, with an origin, a proxy and the rules that lead to it."""
    directory = os.path.join(bench.directory, head.name.replace(" ", "-"))
    os.makedirs(directory)
    host = Host(directory)
    backend = Backend(directory, bench.loadgen, host)
    origin = {"http": backend.ports["backend_http"], "echo": backend.ports["backend_echo"]}
    if not head.proxy:
        return Instance(head, NoProxy, origin, host.address)
    ports = {name: free_port() for name in ("http", "echo", "captured", "admin")}
    way = REDIRECT if head.way == DIRECT else head.way
    values = {**backend.values, **ports, "dir": directory, "address": host.address, "way": way}
    config = render(head.proxy.template_for("intercept"), directory, values)
    log = os.path.join(directory, "log")
    process = Process(head.proxy.command(config), PROXY_CPU, log, host)
    if head.way != DIRECT:
        rules = [bench.loadgen, "intercept", "up", "--netns", str(host.holder.child.pid), "--user",
                 "none", "--no-outbound", "--inbound-port", str(ports["captured"])]
        run(rules + (["--tproxy"] if head.way == TPROXY else []))
    instance = Instance(head, process, ports if head.way == DIRECT else origin, host.address)
    instance.wait()
    return instance
