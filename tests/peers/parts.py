"""What the tests with control planes have in common: checks, the proxy, clients that ask without a pause."""

import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "tests"))

from ports import await_port, await_refusal, free_port  # noqa: E402

PATIENCE_S = 40
failures, children = [], []


def expect(name, found, wanted):
    print(f"{'ok    ' if found == wanted else 'FAILED'} {name}: {found}"
          + ("" if found == wanted else f", not {wanted}"), flush=True)
    if found != wanted:
        failures.append(name)


def eventually(name, read, wanted, patience_s=PATIENCE_S):
    """Waits until `read` returns `wanted`. Its errors count as another result."""
    found, end = None, time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            found = read()
        except Exception as error:  # noqa: BLE001
            found = error
        if found == wanted:
            break
        time.sleep(0.02)
    expect(name, found, wanted)


def run(test):
    """Runs the test, and ends the process with its result, whatever threads and children are left."""
    result = 1
    try:
        test()
        print("failed: " + "; ".join(failures) if failures else "all passed", flush=True)
        result = 1 if failures else 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    for child in children:
        child.kill()
    os._exit(result)


class Proxy:
    """Ringway. `config` has the rest of its file; `{admin}` is its admin port there, and `{web}` its port."""

    def __init__(self, ringway, directory, config, start=True):
        self.ringway, self.directory, self.config = ringway, directory, config
        self.port, self.admin, self.process = free_port(), free_port(), None
        os.makedirs(directory, exist_ok=True)
        self.file = os.path.join(directory, "ringway.yaml")
        self.write(config)
        if start:
            self.start()
            await_port(self.port)

    def write(self, config):
        text = (f"runtime: {{workers: 2}}\nadmin: {{bind: '127.0.0.1:{self.admin}'}}\n"
                + config.replace("{web}", str(self.port)))
        with open(self.file + ".new", "w") as file:
            file.write(text)
        os.rename(self.file + ".new", self.file)

    def start(self):
        with open(self.directory + "/log", "a") as log:
            self.process = subprocess.Popen([self.ringway, "run", "-c", self.file], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        children.append(self.process)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait()
        await_refusal(self.port)
        return code

    def ask(self, host, path="/", headers={}):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path, headers={"host": host, **headers})
        response = connection.getresponse()
        return response.status, response.read().decode()

    def get(self, host):
        status, body = self.ask(host)
        return body if status == 200 else status

    def page(self, path):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5).read().decode()

    def metric(self, name, **labels):
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.page("/metrics").splitlines()
                   if line.startswith((name + "{", name + " ")) and all(label in line for label in wanted))

    def source(self, name):
        return next(source for source in json.loads(self.page("/sources")) if source["source"] == name)

    def log(self):
        with open(self.directory + "/log") as file:
            return file.read()

    def lines(self, text):
        return [line for line in self.log().splitlines() if text in line]


class Origin(http.server.ThreadingHTTPServer):
    """An origin that answers with its name."""
    daemon_threads = True

    def __init__(self, name, address="127.0.0.1"):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.send_response(200)
                self.send_header("content-length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_):
                pass

        super().__init__((address, free_port()), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Load:
    """Clients that ask without a pause, and count the answers whose body `is_right` refuses."""

    def __init__(self, proxy, host, is_right, clients=4):
        self.proxy, self.host, self.is_right = proxy, host, is_right
        self.stopping, self.asked, self.wrong = False, 0, []
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=10)
        while not self.stopping:
            try:
                connection.request("GET", "/", headers={"host": self.host})
                response = connection.getresponse()
                found = (response.status, response.read().decode())
            except (OSError, http.client.HTTPException) as error:
                found = (0, repr(error))
                connection.close()
            self.asked += 1
            if found[0] != 200 or not self.is_right(found[1]):
                self.wrong.append(found)
            time.sleep(0.002)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()
        print(f"       {self.asked} requests", flush=True)
        return self.wrong[:3]
