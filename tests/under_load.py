"""Shared by the tests under load: origins, wrk that checks every response, h2load, metrics."""

import os
import shutil
import subprocess
import urllib.request

from ports import await_port, free_port

CHECK = """
wrong = 0
good = {["from one"] = true, ["from two"] = true, ["from three"] = true}
local threads = {}
function setup(thread) table.insert(threads, thread) end
function response(status, headers, body)
  if status ~= 200 or not good[body] then wrong = wrong + 1 end
end
function done(summary, latency, requests)
  local total = 0
  for _, thread in ipairs(threads) do total = total + thread:get("wrong") end
  print("WRONG ANSWERS: " .. total)
end
"""


def wrk(directory, connections, seconds, url, patience_s=2):
    """Starts wrk. It prints how many responses were wrong, and how many took more than `patience_s`."""
    script = os.path.join(directory, "check.lua")
    with open(script, "w") as file:
        file.write(CHECK)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{patience_s}s", "-s", script, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def h2load(connections, streams, seconds, url):
    """Starts h2load with `streams` streams on each connection."""
    command = ["h2load", f"-c{connections}", f"-m{streams}", f"-D{seconds}", url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wrong_answers(said):
    """The lines of the output that report a failure. An output without a result is a failure, too."""
    if "status codes:" in said:
        good = (" 0 failed, 0 errored, 0 timeout", " 0 3xx, 0 4xx, 0 5xx")
        lines = [line for line in said.splitlines() if line.startswith(("requests:", "status codes:"))]
        return [line for line, end in zip(lines, good) if not line.endswith(end)]
    # wrk names socket errors and statuses above 399 only when there are any.
    bad = [line for line in said.splitlines() if "Socket errors" in line or "Non-2xx" in line]
    return bad if "WRONG ANSWERS: 0" in said else [*bad, "wrong answers"]


def metrics(port):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()


def total(metrics, series):
    return sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith(series))


def origins(directory, names, http2=False):
    """Starts nginx with one server for each name and port of `names`, which answers "from NAME". With `http2` the
    servers speak HTTP/2, and send GOAWAY after every thousand requests. nginx and its worker are a process group."""
    version, requests = (" http2", 1000) if http2 else ("", 100000000)
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}{version}; location / {{ return 200 'from {name}'; }} }}\n"
        for name, port in names.items())
    path = os.path.join(directory, "nginx.conf")
    with open(path, "w") as file:
        file.write(f"""daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/errors;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests {requests}; client_body_temp_path {directory}/body;
{servers} }}""")
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    process = subprocess.Popen([nginx, "-c", path], stderr=subprocess.DEVNULL, start_new_session=True)
    for port in names.values():
        await_port(port)
    return process
