"""The cases, and the bursts of load that measure them."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import http2
from machine import LOAD_CPU, Process
from proxies import GRPC_PATH

ROUTES = 1000
IDLE_CONNECTIONS = 10_000
IDLE_HTTP2_CONNECTIONS = 1000
IDLE_HTTP2_S = 2.5
HTTP_LISTENERS = ("http", "https", "mutual", "outbound", "h2_h1", "h2_h2", "h2_grpc", "tls_h2", "h3")
# The authority of HTTP/2 requests, by listener. It selects the routes.
HTTP2_HOSTS = {"h2_h1": "app2.test", "h2_h2": "app2.test", "h2_grpc": "grpc.test"}
LAST_ROUTE = f"/route{ROUTES - 1:04}/item"


class Case:
    """A closed-loop case whose figure is CPU time per `unit`."""

    def __init__(self, name, title, arguments, path="/", listener="http", routes=0, tls=False,
                 unit="request", burst_s=None):
        self.name = name
        self.title = title
        self.arguments = arguments.split()
        self.path = path
        self.listener = listener
        self.routes = routes
        self.tls = tls
        self.unit = "MB" if "--bulk" in arguments else unit
        #: The length of a burst where it is not the one of all cases.
        self.burst_s = burst_s

    def is_http2(self):
        """Whether the client is h2load. The load generator speaks HTTP/1.1, and HTTP/2 and HTTP/3 with TLS."""
        return self.listener.startswith("h2_")

    def host(self):
        """The arguments of h2load that set the authority; empty for an HTTP/1 case."""
        return ["-H", f":authority: {HTTP2_HOSTS[self.listener]}"] if self.is_http2() else []

    def target(self, instance):
        if self.listener in HTTP_LISTENERS:
            return [instance.url(self.path, self.listener)]
        return [instance.address(self.listener)]


CASES = [
    Case("h1-1", "HTTP/1.1 keep-alive, 1 connection", "-c 1"),
    Case("h1-8", "HTTP/1.1 keep-alive, 8 connections", "-c 8"),
    Case("h1-64", "HTTP/1.1 keep-alive, 64 connections", "-c 64"),
    Case("h1-256", "HTTP/1.1 keep-alive, 256 connections", "-c 256"),
    Case("body-16k", "16 KiB body, 64 connections", "-c 64", path="/16k"),
    Case("body-1m", "1 MiB body, 8 connections", "-c 8", path="/1m"),
    Case("close-16", "a connection per request, 16 clients", "-c 16 --close"),
    Case("routes-1000", "1 000 routes, the last one, 64 connections", "-c 64", LAST_ROUTE,
         routes=ROUTES),
    Case("h2-h1", "HTTP/2 to HTTP/1.1, 10 connections x 10 streams", "-c 10 -m 10",
         listener="h2_h1"),
    Case("h2-h1-100", "HTTP/2 to HTTP/1.1, 1 connection x 100 streams", "-c 1 -m 100",
         listener="h2_h1"),
    Case("h2-h2", "HTTP/2 to HTTP/2, 10 connections x 10 streams", "-c 10 -m 10",
         listener="h2_h2"),
    Case("h2-h2-100", "HTTP/2 to HTTP/2, 1 connection x 100 streams", "-c 1 -m 100",
         listener="h2_h2"),
    Case("h2-16k", "HTTP/2 to HTTP/2, 16 KiB body, 10 connections x 10 streams", "-c 10 -m 10",
         path="/16k", listener="h2_h2"),
    Case("h2-1m", "HTTP/2 to HTTP/2, 1 MiB body, 8 connections x 1 stream", "-c 8 -m 1",
         path="/1m", listener="h2_h2"),
    Case("h2-long", "HTTP/2 to nghttpd for 3 s, 10 connections x 10 streams", "-c 10 -m 10",
         path="/hello", listener="h2_grpc", burst_s=3),
    Case("grpc-unary", "gRPC unary calls, 10 connections x 10 streams",
         "-c 10 -m 10 -d @grpc@ -H content-type:application/grpc -H te:trailers", GRPC_PATH,
         listener="h2_grpc"),
    Case("tcp-pingpong", "TCP ping-pong of 64 bytes, 64 connections", "--tcp -c 64",
         listener="echo"),
    Case("tcp-bulk", "TCP bulk, 8 connections", "--tcp --bulk -c 8", listener="sink"),
    Case("tls-64", "TLS keep-alive, 64 connections", "-c 64", listener="https", tls=True),
    Case("mtls-64", "mTLS to the server, keep-alive, 64 connections",
         "-c 64 -H host:secure.test", listener="outbound", tls=True),
    Case("mtls-handshake", "full mutual TLS handshake and request, 16 clients",
         "-c 16 --close --cert @cert@ --key @key@", listener="mutual", tls=True),
    Case("mtls-resumed", "resumed mutual TLS handshake and request, 16 clients",
         "-c 16 --close --resume --cert @cert@ --key @key@", listener="mutual", tls=True),
    Case("tls-h2-h1", "HTTP/2 through TLS to HTTP/1.1, 10 connections x 10 streams",
         "--http2 -c 10 -m 10", listener="tls_h2", tls=True),
    Case("h3-h1", "HTTP/3 to HTTP/1.1, 10 connections x 10 streams", "--http3 -c 10 -m 10",
         listener="h3", tls=True),
    Case("h3-1m", "HTTP/3 to HTTP/1.1, 1 MiB body, 8 connections", "--http3 -c 8", path="/1m",
         listener="h3", tls=True),
    Case("h3-handshake", "full handshake of QUIC and request, 16 clients", "--http3 -c 16 --close",
         listener="h3", tls=True),
    Case("tls-1m", "1 MiB body through TLS, 8 connections", "-c 8", path="/1m",
         listener="https", tls=True),
]
SETUPS = [(0, False), (ROUTES, False), (0, True)]
RATE = "rate"
RATE_CASE = Case(RATE, "latency at a fixed rate", "-c 64")
RATE_HTTP2 = "h2-rate"
RATE_HTTP2_CASE = Case(RATE_HTTP2, "latency of HTTP/2 at a fixed rate", "-c 10", listener="h2_h1")
RATE_HTTP3 = "h3-rate"
RATE_HTTP3_CASE = Case(RATE_HTTP3, "latency of HTTP/3 at a fixed rate", "--http3 -c 10 -m 10",
                       listener="h3", tls=True)
RATE_CASES = [RATE_CASE, RATE_HTTP2_CASE, RATE_HTTP3_CASE]
#: The case whose saturation gives the rate, by the case of latency.
SATURATED = {RATE: "h1-64", RATE_HTTP2: "h2-h1", RATE_HTTP3: "h3-h1"}
MEMORY = "memory"
MEMORY_TLS = "memory-tls"
IDLE_HTTP2 = "idle-h2"
STARTUP = "startup"
OTHERS = [RATE, RATE_HTTP2, RATE_HTTP3, MEMORY, MEMORY_TLS, IDLE_HTTP2, STARTUP]
#: Titles of the cases without a burst of load.
TITLES = {
    RATE: "latency at a fixed rate",
    RATE_HTTP2: "latency of HTTP/2 at a fixed rate",
    RATE_HTTP3: "latency of HTTP/3 at a fixed rate",
    MEMORY: "resident memory at idle and per idle HTTP/1.1 connection",
    MEMORY_TLS: "memory per idle TLS connection",
    IDLE_HTTP2: "memory per idle HTTP/2 connection",
    STARTUP: "start to first answer",
}
#: The cases of `--versus`: of two builds, and of idle policies.
VERSUS = {
    "baseline": ["h1-8", "h1-64", "close-16", "tls-64", "mtls-64", "h2-h1", "h2-h2", "tcp-pingpong",
                 MEMORY, MEMORY_TLS, IDLE_HTTP2],
    "policies": ["h1-64", "h2-h2"],
}


class Bench:
    """Runs bursts and collects their figures; `say` prints a line of progress."""

    def __init__(self, loadgen, backend, directory, options, say):
        self.loadgen = loadgen
        self.backend = backend
        self.directory = directory
        self.options = options
        self.say = say
        self.failures = []

    def fail(self, text):
        """Records a failure for the results, and prints it at once."""
        self.failures.append(text)
        self.say(f"!! {text}")

    def start_all(self, proxies, routes=0, tls=False, path="/"):
        instances = []
        for proxy in proxies:
            instance = proxy.start(self.directory, self.backend.values, routes, tls)
            try:
                instance.wait(path)
                instances.append(instance)
            except RuntimeError as error:
                self.fail(str(error))
                instance.process.stop()
        return instances

    @staticmethod
    def run_load(command, duration_s):
        """Runs a load generator on the CPU for clients."""
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=duration_s + 30,
            preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU}),
        )

    def load(self, arguments, duration_s):
        """Runs Ringway's load generator on the CPU for clients. Returns its report."""
        command = [self.loadgen, "bench", "--json", "-d", f"{int(duration_s * 1000)}ms", *arguments]
        done = self.run_load(command, duration_s)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}") from None

    def load_http2(self, arguments, duration_s):
        """Runs h2load on the CPU for clients. Returns a report like that of `load`."""
        command = ["h2load", "-D", f"{int(duration_s * 1000)}ms", *arguments]
        done = self.run_load(command, duration_s)
        count = lambda what: re.search(rf"(\d+) {what}", done.stdout)
        found = [count(what) for what in ("succeeded", "failed", "errored", "2xx")]
        if not all(found):
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]} {done.stderr.strip()}")
        succeeded, failed_count, errored, fine = (int(match.group(1)) for match in found)
        errors = {"http2": failed_count + errored + max(succeeded - fine, 0)}
        return {"requests": fine, "duration_s": duration_s, "statuses": {}, "errors": errors}

    def arguments(self, case):
        """The arguments of the client, with the paths of files in place of their placeholders."""
        files = {f"@{name}@": path for name, path in self.backend.files.items()}
        return [files.get(word, word) for word in case.arguments] + case.host()

    def able(self, case, instances):
        """The instances that support the case."""
        able = [i for i in instances if i.proxy.serves(case.listener)]
        if case.path == GRPC_PATH:
            able = [instance for instance in able if self.answers_grpc(case, instance)]
        for instance in instances:
            if instance not in able:
                self.say(f"ABSENT from {case.name}: {instance.proxy.name} cannot do that")
        return able

    def answers_grpc(self, case, instance):
        """Whether the response to a call has grpc-status in its trailers. h2load does not check that."""
        arguments = [word for word in self.arguments(case) if word not in ("-c", "-m", "10")]
        done = self.run_load(["nghttp", "-v", *arguments, *case.target(instance)], 5)
        fine = "grpc-status: 0" in done.stdout
        if not fine:
            self.fail(f"{case.name}, {instance.proxy.name}: no grpc-status 0:"
                      f" {done.stdout[-300:]} {done.stderr.strip()}")
        return fine

    def burst(self, case, instance, duration_s):
        """Runs one burst. Measures the CPU time of the proxy per unit, and the units per second."""
        arguments = self.arguments(case)
        before = instance.process.cpu_us()
        load = self.load_http2 if case.is_http2() else self.load
        report = load([*arguments, *case.target(instance)], duration_s)
        spent_us = instance.process.cpu_us() - before
        units = report["bytes"] / 1e6 if case.unit == "MB" else report["requests"]
        if not units:
            raise RuntimeError(f"{case.name}: nothing went through {instance.proxy.name}")
        return {
            "cpu_us": spent_us / units,
            "per_s": units / report["duration_s"],
            "failed": failed(report),
        }

    def closed(self, case, instances, deadline):
        """Runs all rounds of a case. Each round has a burst of every proxy, in the order A B C D or D C B A."""
        samples = {instance.proxy.name: [] for instance in instances}
        for round_number in range(self.options.rounds):
            # Reverse the order each round, so that no proxy always runs after the same one.
            turn = -1 if round_number % 2 else 1
            for instance in instances[::turn]:
                if time.monotonic() > deadline:
                    return self.rows(samples)
                name = instance.proxy.name
                try:
                    sample = self.burst(case, instance, case.burst_s or self.options.burst)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    self.fail(f"{case.name}, {name}: {error}")
                    continue
                samples[name].append(sample)
                self.say(
                    f"{case.name:14} round {round_number + 1}/{self.options.rounds}  {name:16}"
                    f" {sample['cpu_us']:8.1f} µs CPU/{case.unit}"
                    f" {sample['per_s']:9.0f} {case.unit}s/s"
                    + (f"  {sample['failed']} FAILED" if sample["failed"] else "")
                )
        return self.rows(samples)

    @staticmethod
    def rows(samples):
        rows = {}
        for name, taken in samples.items():
            if not taken:
                continue
            cpu = [sample["cpu_us"] for sample in taken]
            rows[name] = {
                "cpu_us": statistics.median(cpu),
                "cpu_us_min": min(cpu),
                "cpu_us_max": max(cpu),
                "cpu_us_rounds": cpu,
                "per_s": statistics.median(sample["per_s"] for sample in taken),
                "failed": sum(sample["failed"] for sample in taken),
                "rounds": len(taken),
            }
        return rows

    def at_rate(self, case, instances, rate, deadline):
        """Measures the latency at `rate` requests per second, the same rate for all proxies."""
        names = ("p50", "p90", "p99", "p99_9", "max")
        samples = {instance.proxy.name: [] for instance in instances}
        for round_number in range(self.options.rounds):
            for instance in instances:
                if time.monotonic() > deadline:
                    break
                name, process = instance.proxy.name, instance.process
                before_us, before = process.cpu_us(), process.wakeups()
                try:
                    report = self.load_at(case, rate, instance)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    self.fail(f"{case.name}, {name}: {error}")
                    continue
                requests = max(report["requests"], 1)
                sample = {key: report["latency_us"][key] for key in names}
                sample["cpu_us"] = (process.cpu_us() - before_us) / requests
                sample["wakeups"] = (process.wakeups() - before) / requests
                sample["failed"] = failed(report)
                samples[name].append(sample)
                self.say(
                    f"{case.name:14} round {round_number + 1}/{self.options.rounds}  {name:16}"
                    f" p50 {sample['p50']:6.0f}  p99 {sample['p99']:6.0f}"
                    f"  p99.9 {sample['p99_9']:6.0f} µs"
                )
        return {
            name: {key: statistics.median(sample[key] for sample in taken) for key in taken[0]}
            for name, taken in samples.items()
            if taken
        }

    def load_at(self, case, rate, instance):
        """Sends requests at a fixed rate. Returns a report with latencies."""
        duration_s = self.options.rate_burst
        if not case.is_http2():
            arguments = ["--rate", str(rate), *self.arguments(case), *case.target(instance)]
            return self.load(arguments, duration_s)
        connections = int(case.arguments[case.arguments.index("-c") + 1])
        arguments = [*case.host(), *case.target(instance)]
        waits_us, refused = http2_waits(self.directory, rate, connections, duration_s, arguments)
        if len(waits_us) < 2:
            raise RuntimeError("no request was answered")
        at = statistics.quantiles(waits_us, n=1000)
        latency_us = {"p50": at[499], "p90": at[899], "p99": at[989], "p99_9": at[998],
                      "max": max(waits_us)}
        return {"requests": len(waits_us), "statuses": {}, "errors": {"http2": refused},
                "latency_us": latency_us}

    def memory(self, proxy, tls=False):
        """Measures the resident memory of a new instance without connections and with many idle ones."""
        instance = proxy.start(self.directory, self.backend.values, tls=tls)
        log = os.path.join(self.directory, f"idle-{proxy.name}{'-tls' if tls else ''}.log")
        holder = None
        try:
            instance.wait()
            time.sleep(0.5)
            idle = instance.process.memory_kb()
            arguments = ["--idle", str(IDLE_CONNECTIONS), "-d", "60s", "--json",
                         instance.url(listener="https" if tls else "http")]
            holder = Process([self.loadgen, "bench", *arguments], LOAD_CPU, log)
            held = wait_until_held(holder)
            time.sleep(0.5)
            full = instance.process.memory_kb()
        finally:
            if holder:
                holder.stop()
            instance.process.stop()
        grown = max(full["rss"] - idle["rss"], 0)
        row = {
            "idle_rss_mb": idle["rss"] / 1024,
            "idle_pss_mb": idle["pss"] / 1024,
            "held": held,
            "per_connection_kb": grown / held,
            "full_rss_mb": full["rss"] / 1024,
        }
        self.say(
            f"{'memory':14} {proxy.name:9} {row['idle_rss_mb']:6.1f} MB at idle,"
            f" {row['per_connection_kb']:.2f} KB for each of {held} idle"
            f" {'TLS ' if tls else ''}connections"
        )
        return row

    def memory_http2(self, proxy, request):
        """Measures the memory of idle HTTP/2 connections, which have had one request each or none."""
        instance = proxy.start(self.directory, self.backend.values)
        address = (instance.host, instance.ports["h2_h1"])
        held = []
        try:
            instance.wait()
            # Load the code for HTTP/2 into memory first.
            http2.release(http2.hold(address, 1, True))
            time.sleep(0.5)
            idle = instance.process.memory_kb()
            held = http2.hold(address, IDLE_HTTP2_CONNECTIONS, request)
            # Some proxies free the memory that they needed to open a connection only after a while.
            time.sleep(IDLE_HTTP2_S)
            full = instance.process.memory_kb()
        finally:
            http2.release(held)
            instance.process.stop()
        row = {
            "held": len(held),
            "per_connection_kb": max(full["pss"] - idle["pss"], 0) / len(held),
            "per_connection_rss_kb": max(full["rss"] - idle["rss"], 0) / len(held),
        }
        self.say(
            f"{IDLE_HTTP2:14} {proxy.name:9} {row['per_connection_kb']:.2f} KB for each of"
            f" {len(held)} idle HTTP/2 connections, {'one request' if request else 'none'} on each"
        )
        return row

    def startup(self, proxies):
        """Measures the milliseconds from exec to the first response, with a start of each proxy by turns."""
        samples = {proxy.name: [] for proxy in proxies}
        for _ in range(self.options.rounds):
            for proxy in proxies:
                instance = proxy.start(self.directory, self.backend.values)
                try:
                    samples[proxy.name].append(instance.wait())
                except RuntimeError as error:
                    self.fail(f"startup, {error}")
                finally:
                    instance.process.stop()
        medians = {name: statistics.median(taken) for name, taken in samples.items() if taken}
        for name, ms in medians.items():
            self.say(f"{'startup':14} {name:9} {ms:6.1f} ms to the first answer")
        return medians


def http2_waits(directory, rate, connections, duration_s, arguments):
    """Sends requests over HTTP/2 at a fixed rate. Returns their latencies in microseconds, and how
    many of them failed. A connection has up to 100 requests under way, and then sends none."""
    log = os.path.join(directory, f"h2load-{time.monotonic_ns()}.tsv")
    command = ["h2load", "-c", str(connections), "-m", "100", "-D", f"{int(duration_s * 1000)}ms",
               "--rps", f"{rate / connections:g}", f"--log-file={log}", *arguments]
    done = Bench.run_load(command, duration_s)
    if done.returncode != 0 or not os.path.exists(log):
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-300:]} {done.stderr.strip()}")
    with open(log) as file:
        # Each line: the start in microseconds since the epoch, the status, the latency.
        rows = [line.split() for line in file]
    os.unlink(log)
    waits_us = [int(wait) for _, status, wait in rows if status == "200"]
    return waits_us, len(rows) - len(waits_us)


def has_h2load():
    return shutil.which("h2load") is not None


def failed(report):
    """The number of requests with an error status or without a response."""
    refused = sum(n for status, n in report["statuses"].items() if int(status) >= 400)
    return refused + sum(report["errors"].values())


def wait_until_held(holder, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and holder.child.poll() is None:
        for line in holder.last_words().splitlines():
            if line.startswith("holding "):
                held = int(line.split()[1])
                if held:
                    return held
        time.sleep(0.05)
    raise RuntimeError(f"idle connections were not opened: {holder.last_words()}")


def binary_size(path):
    """The size of the file in megabytes, as it is and without symbols."""
    sizes = {"file_mb": os.path.getsize(os.path.realpath(path)) / 1e6}
    with tempfile.TemporaryDirectory() as directory:
        # `strip` removes its output when it fails, so it gets a path and not an open file.
        stripped = os.path.join(directory, "stripped")
        try:
            command = ["strip", "-o", stripped, os.path.realpath(path)]
            if subprocess.run(command, capture_output=True).returncode == 0:
                sizes["stripped_mb"] = os.path.getsize(stripped) / 1e6
        except FileNotFoundError:
            print("strip is not installed: sizes are those of the files", file=sys.stderr)
    return sizes
