"""The three proxies, a separate origin behind each, and a WebSocket server that echoes."""

import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from ports import await_port, free_port  # noqa: E402

started = []


class Proxy:
    """A running proxy: `port` leads to its recording origin, `ws_port` to the echo server."""

    def __init__(self, name, version, port, ws_port, origin_port, origin_log, process):
        self.name = name
        self.version = version
        self.port = port
        self.ws_port = ws_port
        self.origin_port = origin_port
        self.origin_log = origin_log
        self.process = process


def spawn(command, log):
    """Starts a server that ends with this run, whatever happens."""
    with open(log, "w") as out:
        process = subprocess.Popen(["timeout", "1200", *command], stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=subprocess.STDOUT)
    started.append(process)
    return process


def stop_all():
    for process in started:
        process.terminate()
    for process in started:
        process.wait()


def program(name):
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if not found:
        raise SystemExit(f"{name} is missing; ./test installs it")
    return found


def start(ringway, directory, root, tools):
    """Starts the servers and proxies, and waits until they answer."""
    echo = free_port()
    script = os.path.join(os.path.dirname(__file__), "echo.py")
    spawn([os.path.join(tools, "python"), script, str(echo)], os.path.join(directory, "echo.log"))
    await_port(echo)
    recorder = os.path.join(root, "tests/probes/strict_origin.py")
    proxies = []
    for make in (ringway_command, haproxy_command, nginx_command):
        port, ws_port, origin = free_port(), free_port(), free_port()
        log = os.path.join(directory, f"origin-{origin}.log")
        spawn(["python3", recorder, str(origin), log], log + ".out")
        await_port(origin)
        name, version, command = make(ringway, directory, port, ws_port, origin, echo)
        process = spawn(command, os.path.join(directory, f"{name}.log"))
        await_port(port)
        await_port(ws_port)
        proxies.append(Proxy(name, version, port, ws_port, origin, log, process))
    return proxies


def version_of(*command):
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return (said.stdout + said.stderr).splitlines()[0].strip()


def write(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def ringway_command(ringway, directory, port, ws_port, origin, echo):
    config = write(directory, "ringway.yaml", f"""
admin: {{bind: 'off'}}
runtime: {{workers: 1}}
listeners:
  web: {{bind: ['127.0.0.1:{port}', '127.0.0.1:{ws_port}']}}
routes:
  '*':
    - {{match: {{headers: {{upgrade: websocket}}}}, to: echo}}
    - {{to: origin}}
services:
  origin: {{endpoints: ['127.0.0.1:{origin}']}}
  echo: {{endpoints: ['127.0.0.1:{echo}']}}
""")
    return "ringway", version_of(ringway, "--version"), [ringway, "run", "-c", config]


def haproxy_command(_, directory, port, ws_port, origin, echo):
    haproxy = program("haproxy")
    config = write(directory, "haproxy.cfg", f"""
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout http-request 10s
frontend web
  bind 127.0.0.1:{port}
  default_backend origin
frontend ws
  bind 127.0.0.1:{ws_port}
  default_backend echo
backend origin
  server a 127.0.0.1:{origin}
backend echo
  server a 127.0.0.1:{echo}
""")
    return "haproxy", version_of(haproxy, "-v"), [haproxy, "-db", "-f", config]


def nginx_command(_, directory, port, ws_port, origin, echo):
    nginx = program("nginx")
    config = write(directory, "nginx.conf", f"""
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.error;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  proxy_http_version 1.1;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 32; }}
  server {{ listen 127.0.0.1:{port}; server_name probe; location / {{
    proxy_pass http://origin; proxy_set_header Connection ""; proxy_set_header Host $host; }} }}
  server {{ listen 127.0.0.1:{ws_port}; location / {{
    proxy_pass http://127.0.0.1:{echo}; proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade; proxy_read_timeout 60s; }} }}
}}
""")
    return "nginx", version_of(nginx, "-v"), [nginx, "-c", config]
