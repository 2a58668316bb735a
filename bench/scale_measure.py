"""The measurements of bench/scale, and their table."""

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import time

import scale_config
import scale_names
from machine import LOAD_CPU, PROXY_CPU, Process, free_port

RATE = 2000
READY_S = 60
APPLIED_S = 60
# The number of DNS names in the parts `changes` and `tunnels`. Each name changes once a second at most,
# and `tunnels` needs more changes.
NAMES_CHANGES, NAMES_TUNNELS = 1, 20
# Changes before the first measurement, in which the allocator and the pools reach their usual size.
WARM_UP = 5
SETTLE_S = 2
POLL_S = 0.01
# The control thread is idle when the process uses less than IDLE_PART of a CPU for WINDOW_S seconds.
IDLE_PART, WINDOW_S = 0.1, 0.5
# The measurement ends when memory has grown this many times: a build that keeps a snapshot for each
# tunnel would fill the machine's memory.
GROWTH_MAX = 3


class Figure:
    """One line of the table. `aim` is the largest value that meets the aim."""

    def __init__(self, title, unit, aim=None):
        self.title = title
        self.unit = unit
        self.aim = aim


FIGURES = {
    "check_cpu_ms": Figure("`ringway check`, CPU", "ms", 1000),
    "reload_cpu_ms": Figure("a reload, CPU in all threads", "ms", 1000),
    "reload_worker_ms": Figure("a reload, CPU in the worker's thread", "ms"),
    "reload_applied_ms": Figure("a reload, from SIGHUP to its first answer, median", "ms"),
    "reload_slowest_ms": Figure("the same, the slowest reload", "ms"),
    "memory_start_mb": Figure("resident memory after the start", "MB", 100),
    "memory_mb": Figure("resident memory after the reloads", "MB", 100),
    "rest_cpu_ms": Figure("CPU in a second without load", "ms"),
    "rest_p50_ms": Figure("2 000 requests/s at rest, p50", "ms"),
    "rest_p99_ms": Figure("2 000 requests/s at rest, p99", "ms"),
    "rest_p99_9_ms": Figure("2 000 requests/s at rest, p99.9", "ms", 20),
    "p50_ms": Figure("2 000 requests/s through the reloads, p50", "ms"),
    "p99_ms": Figure("2 000 requests/s through the reloads, p99", "ms"),
    "p99_9_ms": Figure("2 000 requests/s through the reloads, p99.9", "ms", 20),
    "max_ms": Figure("2 000 requests/s through the reloads, slowest request", "ms"),
    "failed": Figure("requests that failed at rest and through the reloads", "requests", 0),
    "change_cpu_ms": Figure("a change of one service's endpoints, CPU in all threads", "ms", 2),
    "change_worker_ms": Figure("a change of one service's endpoints, CPU in the worker's thread",
                               "ms"),
    "change_kib": Figure("a change of one service's endpoints, memory retained", "KiB", 64),
    "tunnels_begin_mb": Figure("resident memory before the tunnels", "MB"),
    "tunnels_count": Figure("changes, each with a tunnel, until the end or until stopped",
                            "changes"),
    "tunnels_end_mb": Figure("resident memory after the changes, each with a tunnel", "MB"),
    "tunnels_ratio": Figure("resident memory at the end, of that at the beginning", "times", 1.05),
    "tunnels_only_mb": Figure("resident memory of as many tunnels without changes", "MB"),
}


class Instance:
    """One Ringway process with the large configuration, and the clients that measure it."""

    def __init__(self, binary, loadgen, size, backend, directory, say):
        self.binary = binary
        self.loadgen = loadgen
        self.size = size
        self.say = say
        self.directory = directory
        self.config = os.path.join(directory, "config")
        self.ports = {name: free_port() for name in ("http", "tunnels", "admin", "which")}
        self.ports.update(backend.ports)
        self.process = None
        self.marks = 0
        self.names = None

    def write(self, names, addresses=1):
        """Writes the configuration, and starts the DNS server for the names in it."""
        os.makedirs(self.directory)
        scale_config.write(self.config, self.size, self.ports, names)
        self.names = scale_names.Names(addresses)
        scale_names.serve_addresses(self.ports["which"])

    def start(self):
        """Starts Ringway, and waits until it answers. Only its worker is pinned to a CPU."""
        log = os.path.join(self.directory, "log")
        self.process = Process([self.binary, "run", "-c", self.config], None, log)
        self.until(lambda: self.get(scale_config.MARKER).startswith("mark"), READY_S, "answer")
        # The load generator runs on the other CPU.
        self.process.place_threads("worker", PROXY_CPU)
        time.sleep(SETTLE_S)

    def stop(self):
        if self.process:
            self.process.stop()
        if self.names:
            self.names.close()

    def get(self, host):
        """The body of the response for a host; empty without a response."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=5)
            connection.request("GET", "/", headers={"host": host, "connection": "close"})
            body = connection.getresponse().read().decode()
            connection.close()
            return body
        except (OSError, http.client.HTTPException):
            return ""

    def until(self, condition, limit_s, what):
        """Waits until the condition holds. Returns how many milliseconds that took."""
        began = time.monotonic()
        while not condition():
            if self.process.child.poll() is not None:
                raise RuntimeError(f"ringway has ended: {self.process.last_words()}")
            if time.monotonic() > began + limit_s:
                raise RuntimeError(f"no {what} in {limit_s} s: {self.process.last_words()}")
            time.sleep(POLL_S)
        return (time.monotonic() - began) * 1e3

    def reload(self):
        """Changes one file, sends SIGHUP, and waits until the change is in use."""
        self.marks += 1
        scale_config.mark(self.config, self.marks)
        os.kill(self.process.child.pid, signal.SIGHUP)
        wanted = f"mark {self.marks}"
        return self.until(lambda: self.get(scale_config.MARKER) == wanted, APPLIED_S, "reload")

    def load(self, duration_s):
        """Starts the steady load on the real service."""
        command = [self.loadgen, "bench", "--json", "--rate", str(RATE), "-c", "64",
                   "-d", f"{int(duration_s * 1000)}ms", f"http://127.0.0.1:{self.ports['http']}/"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU}))

    def rss_kb(self):
        return self.process.memory_kb()["rss"]

    def tunnel(self):
        """Opens a TCP connection, sends a byte, and waits until the server has returned it."""
        stream = socket.create_connection(("127.0.0.1", self.ports["tunnels"]), timeout=10)
        stream.sendall(b"x")
        if stream.recv(1) != b"x":
            raise RuntimeError("a tunnel was closed")
        return stream

    def change(self):
        """Changes one name, and waits until requests go to its new address."""
        name, address = self.names.change()
        self.until(lambda: self.get(name) == address, APPLIED_S, f"request at {address}")


class Spent:
    """The CPU time of a process in a period: of all threads, and of the workers alone."""

    def __init__(self, process):
        self.process = process
        self.began = time.monotonic()
        self.all_us, self.worker_us = process.cpu_us(), process.thread_us("worker")
        self.seconds = 0

    def end(self):
        """Ends the period."""
        self.seconds = time.monotonic() - self.began
        self.all_us = self.process.cpu_us() - self.all_us
        self.worker_us = self.process.thread_us("worker") - self.worker_us
        return self

    def above(self, rest, part):
        """The CPU time of this period minus that of a period at rest of the same length."""
        return getattr(self, part) - getattr(rest, part) / rest.seconds * self.seconds


def finish(load):
    """Waits for the load generator. Returns its report and its failures."""
    out, errors = load.communicate()
    try:
        report = json.loads(out)
    except ValueError:
        raise RuntimeError(f"the load generator has failed: {errors.strip()}") from None
    refused = sum(n for status, n in report["statuses"].items() if int(status) >= 400)
    return report["latency_us"], refused + sum(report["errors"].values())


def reloads(instance):
    """Measures `ringway check`, resident memory, and latency without and during reloads."""
    instance.write(NAMES_CHANGES)
    yield "check_cpu_ms", check(instance)
    instance.start()
    yield "memory_start_mb", instance.rss_kb() / 1024
    cpu = instance.process.cpu_us
    before = cpu()
    time.sleep(SETTLE_S)
    yield "rest_cpu_ms", (cpu() - before) / 1e3 / SETTLE_S
    latency, failed, rest = loaded(instance, instance.size.burst_s, lambda _: None)
    for key in ("p50", "p99", "p99_9"):
        yield f"rest_{key}_ms", latency[key] / 1e3
    count, applied = instance.size.reloads, []
    period_s = period(instance)
    instance.say(f"a reload each {period_s:.1f} s")

    def reload_all(began):
        for number in range(count):
            time.sleep(max(0, began + number * period_s - time.monotonic()))
            applied.append(instance.reload())

    latency, more, spent = loaded(instance, count * period_s, reload_all)
    yield "reload_cpu_ms", spent.above(rest, "all_us") / count / 1e3
    yield "reload_worker_ms", spent.above(rest, "worker_us") / count / 1e3
    yield "reload_applied_ms", statistics.median(applied)
    yield "reload_slowest_ms", max(applied)
    for key in ("p50", "p99", "p99_9", "max"):
        yield f"{key}_ms", latency[key] / 1e3
    yield "failed", failed + more
    time.sleep(SETTLE_S)
    yield "memory_mb", instance.rss_kb() / 1024


def period(instance):
    """The seconds from one reload to the next, so that each ends before the next one begins.

    Ringway can be busy after a reload is applied: it also notices the changed file by itself.
    """
    began = time.monotonic()
    instance.reload()
    busy = True
    while busy and time.monotonic() < began + APPLIED_S:
        before = instance.process.cpu_us()
        time.sleep(WINDOW_S)
        busy = instance.process.cpu_us() - before > IDLE_PART * WINDOW_S * 1e6
    return max(1.5, 1.5 * (time.monotonic() - began))


def check(instance):
    """The CPU time of `ringway check`, in milliseconds."""
    log = os.path.join(instance.directory, "check.log")
    with open(log, "wb") as file:
        child = subprocess.Popen([instance.binary, "check", "-c", instance.config], stdout=file,
                                 stderr=file)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = status
    if status != 0:
        with open(log, errors="replace") as file:
            raise RuntimeError(f"ringway check refuses the configuration: {file.read()[-800:]}")
    return (used.ru_utime + used.ru_stime) * 1e3


def loaded(instance, duration_s, during):
    """Runs the load, and `during` at the same time. Returns latency, failures, and the CPU time of the proxy."""
    spent = Spent(instance.process)
    load = instance.load(duration_s)
    try:
        during(spent.began)
        latency, failed = finish(load)
    finally:
        if load.poll() is None:
            load.kill()
            load.wait()
    return latency, failed, spent.end()


def changes(instance):
    """Measures the cost of a change of endpoints: a service has ten, and one of them is replaced."""
    instance.write(NAMES_CHANGES, scale_config.ENDPOINTS_EACH)
    instance.start()
    for _ in range(WARM_UP):
        instance.names.change()
    time.sleep(SETTLE_S)
    count = instance.size.changes
    spent, memory = {}, {}
    for changing in (False, True):
        instance.names.rest()
        spent[changing] = Spent(instance.process)
        for _ in range(count):
            if changing:
                instance.names.change()
            else:
                time.sleep(1)
        time.sleep(SETTLE_S)
        spent[changing].end()
        memory[changing] = instance.rss_kb()
    for key, part in (("change_cpu_ms", "all_us"), ("change_worker_ms", "worker_us")):
        yield key, spent[True].above(spent[False], part) / count / 1e3
    yield "change_kib", (memory[True] - memory[False]) / count
    name, new = instance.names.last
    seen = lambda: instance.get(name) == new
    instance.until(seen, READY_S, f"request at {new}, the address of the last change")


def tunnels(instance):
    """Measures the memory of tunnels that stay open, with one change of endpoints before each."""
    instance.write(NAMES_TUNNELS)
    instance.start()
    for _ in range(WARM_UP):
        instance.change()
    instance.tunnel().close()
    time.sleep(SETTLE_S)
    begin = instance.rss_kb()
    yield "tunnels_begin_mb", begin / 1024
    held = []
    for number in range(instance.size.tunnels):
        instance.change()
        held.append(instance.tunnel())
        if (number + 1) % max(instance.size.tunnels // 10, 1) == 0:
            instance.say(f"{number + 1} changes and tunnels: {instance.rss_kb() / 1024:.1f} MB")
        if instance.rss_kb() > begin * GROWTH_MAX:
            instance.say(f"stopped: {GROWTH_MAX} times the memory of the beginning")
            break
    instance.names.rest()
    time.sleep(SETTLE_S)
    end = instance.rss_kb()
    yield "tunnels_count", len(held)
    yield "tunnels_end_mb", end / 1024
    yield "tunnels_ratio", end / begin
    for stream in held:
        stream.close()
    yield from tunnels_only(instance)


def tunnels_only(instance):
    """Opens as many tunnels in a new process without changes: the memory of the tunnels alone."""
    instance.process.stop()
    instance.start()
    instance.tunnel().close()
    time.sleep(SETTLE_S)
    before = instance.rss_kb()
    held = [instance.tunnel() for _ in range(instance.size.tunnels)]
    time.sleep(SETTLE_S)
    yield "tunnels_only_mb", (instance.rss_kb() - before) / 1024
    for stream in held:
        stream.close()


PARTS = {"reloads": reloads, "changes": changes, "tunnels": tunnels}


def line(key, value):
    figure = FIGURES[key]
    return f"{figure.title}: {number(value)} {figure.unit} {verdict(key, value)}".strip()


def verdict(key, value):
    aim = FIGURES[key].aim
    return "" if aim is None else "met" if value <= aim else "MISSED"


def missed(figures):
    return [key for key, value in figures.items() if verdict(key, value) == "MISSED"]


def markdown(results):
    """The report as Markdown."""
    names = list(results["binaries"])
    heads = ["figure", "unit", "aim"] + [word for name in names for word in (name, "")]
    if len(names) > 1:
        heads.append("to baseline")
    lines = [f"# Ringway at scale, {results['date']}", "",
             f"`{results['command']}`: {results['size']['text']}, one worker.", "",
             f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for key, figure in FIGURES.items():
        values = [results["figures"][name].get(key) for name in names]
        if all(value is None for value in values):
            continue
        aim = "" if figure.aim is None else f"at most {figure.aim}"
        cells = [figure.title, figure.unit, aim]
        for value in values:
            measured = value is not None
            cells += [number(value), verdict(key, value)] if measured else ["–", ""]
        if len(names) > 1:
            comparable = all(value and value > 0 for value in values)
            cells.append(f"{values[0] / values[1]:.2f}" if comparable else "–")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Machine and versions", ""]
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in results["machine"].items()]
    lines += [f"- {name}: {binary['version']}, `{binary['path']}`"
              for name, binary in results["binaries"].items()]
    problems = results["notes"] + results["failures"]
    if problems:
        lines += ["", "## To know", ""] + [f"- {problem}" for problem in problems]
    return "\n".join(lines) + "\n"


def number(value):
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else (
        f"{value:.2f}")
