"""Requests from gunicorn's own test suite: those that a server must refuse, and those that it must accept."""

import glob
import json
import os
import socket
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

SUITE = "gunicorn==23.0.0"
# How long a proxy may take to answer, and how long to wait for a second response after the first.
PATIENCE_S = 1.5
QUIET_S = 0.25

# The suite expects a server to accept these. Ringway refuses them on purpose: it would be a risk to forward them.
REFUSED_ON_PURPOSE = {
    "005": "a fragment in a request target (RFC 9112 3.2)",
    "009": "a transfer coding other than chunked, and a Content-Length beside it (RFC 9112 6.1)",
    "025": "a transfer coding other than chunked (RFC 9112 6.1)",
    "025_line": "a transfer coding other than chunked (RFC 9112 6.1)",
    "027": "bytes above 0x7f in a request target (RFC 3986 2)",
    "028": "a space before the colon (RFC 9112 5.1)",
    "029": "two transfer codings (RFC 9112 6.1)",
    "030": "two transfer codings (RFC 9112 6.1)",
    "099": "the body is shorter than announced: the file breaks off, all three wait for the rest",
    "compat_obs_fold": "a folded field line (RFC 9112 5.2)",
    "compat_obs_fold_huge": "a folded field line (RFC 9112 5.2)",
}
# The suite expects a server to refuse these. Ringway accepts them without danger: the origin gets one clean request.
LIMIT = "the suite sets a limit of gunicorn's that the request exceeds; Ringway's are higher"
HARMLESS = {
    "003c": "`-bl` is a token, so a method (RFC 9110 5.6.2)",
    "006": LIMIT,
    "007": LIMIT,
    "008": LIMIT,
    "010": LIMIT,
    "011": LIMIT,
    "012": LIMIT,
    "017": LIMIT,
    "019": "forwarded fields that disagree; Ringway writes its own x-forwarded-proto",
    "040": "`Transfer_Encoding` and `Content_Length` are other names; only CGI-like origins confuse them",
    "chunked_07": "`Transfer_Encoding` is another name; only CGI-like origins confuse it",
}


def suite(tools, directory):
    """The cases as (kind, name, bytes)."""
    subprocess.run([os.path.join(tools, "pip"), "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                    "--dest", directory, SUITE], check=True)
    archive = glob.glob(os.path.join(directory, "gunicorn-*.tar.gz"))[0]
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    base = glob.glob(os.path.join(directory, "gunicorn-*/tests/requests"))[0]
    for kind in ("invalid", "valid"):
        for path in sorted(glob.glob(os.path.join(base, kind, "*.http"))):
            name = os.path.basename(path).removesuffix(".http")
            # PROXY protocol headers belong to another listener.
            if not name.startswith("pp_"):
                yield kind, name, with_host(unescape(open(path, "rb").read()))


def unescape(text):
    """Removes the line breaks of a file, and replaces its escapes for CR, LF, TAB and NUL."""
    text = text.replace(b"\n", b"").replace(b"\\r\\n", b"\r\n")
    return text.replace(b"\\0", b"\0").replace(b"\\n", b"\n").replace(b"\\t", b"\t")


def with_host(data):
    """Adds a Host field if there is none. Without it a proxy refuses the request, whatever else the case is about."""
    line, crlf, rest = data.partition(b"\r\n")
    if not crlf or not line.endswith(b"HTTP/1.1") or b"\r\nhost:" in data.lower():
        return data
    return line + b"\r\nHost: probe\r\n" + rest


class Case:
    """One exchange through one proxy."""

    def __init__(self, proxy, data):
        seen = len(records(proxy))
        self.answer, self.ended = talk(proxy.port, data)
        self.status = status_of(self.answer)
        reached = records(proxy)[seen:]
        self.bad = [record["bad"] for record in reached if record.get("bad") and record["bad"] != "cut"]
        self.reached = len([record for record in reached if record.get("line")])
        self.mixed = not canary(proxy)

    def invalid_verdict(self):
        if self.bad:
            return f"PASSED ON ({self.bad[0][:30]})", False
        if self.mixed:
            return "MIXED UP", False
        if self.reached:
            return f"cleaned ({self.status})", None
        return ("waits" if not self.status and not self.ended else str(self.status or "closed")), True

    def valid_verdict(self):
        if self.bad or self.mixed:
            return f"PASSED ON ({(self.bad or ['mixed'])[0][:30]})", False
        if self.reached and 200 <= (self.status or 0) < 300:
            return "ok", True
        return f"refused ({self.status or 'closed'})", None


def records(proxy):
    with open(proxy.origin_log) as file:
        return [json.loads(line) for line in file if line.strip()]


def talk(port, data):
    """Sends `data`, and reads until the connection ends or nothing more arrives."""
    answer, ended = b"", False
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as stream:
        try:
            stream.sendall(data)
            while chunk := stream.recv(65536):
                answer += chunk
                stream.settimeout(QUIET_S)
            ended = True
        except TimeoutError:
            pass
        except OSError:
            ended = True
    return answer, ended


def status_of(answer):
    parts = answer.split(b" ", 2)
    return int(parts[1]) if answer.startswith(b"HTTP/1.") and parts[1].isdigit() else None


def canary(proxy):
    """Whether an ordinary request on a new connection gets its own response."""
    answer, _ = talk(proxy.port, b"GET /canary HTTP/1.1\r\nHost: canary\r\nConnection: close\r\n\r\n")
    return status_of(answer) == 200 and b"/canary" in answer


def run(proxies, tools, directory):
    rows, problems, tallies = [], [], {}
    for kind, name, data in suite(tools, directory):
        print(f"requests  {kind}/{name}", file=sys.stderr)
        cells = []
        with ThreadPoolExecutor(len(proxies)) as side_by_side:
            cases = list(side_by_side.map(lambda proxy: Case(proxy, data), proxies))
        for proxy, case in zip(proxies, cases):
            text, good = case.invalid_verdict() if kind == "invalid" else case.valid_verdict()
            cells.append(text)
            tally = tallies.setdefault((kind, proxy.name), [0, 0, 0])
            tally[0 if good else 1 if good is None else 2] += 1
            expected = HARMLESS if kind == "invalid" else REFUSED_ON_PURPOSE
            if proxy.name == "ringway" and not good and name not in expected:
                problems.append(f"{kind}/{name}: {text}")
        rows.append([f"{kind}/{name}", *cells])
    for kind, words in (("invalid", "refused / cleaned / passed on"), ("valid", "served / refused / broken")):
        totals = [" / ".join(map(str, tallies[kind, proxy.name])) for proxy in proxies]
        rows.append([f"**{kind}: {words}**", *(f"**{total}**" for total in totals)])
    reasons = {f"valid/{name}": why for name, why in REFUSED_ON_PURPOSE.items()}
    reasons |= {f"invalid/{name}": why for name, why in HARMLESS.items()}
    return {
        "title": f"Requests ({SUITE})",
        "text": "An invalid request is to be refused before anything reaches the origin: a number is the "
                "status of the refusal, *closed* a connection closed without one, *waits* one that waits "
                "for the rest; *cleaned* means that the origin got one well-formed request, PASSED ON that "
                "it got what it had to call bad, MIXED UP that a later request got a wrong answer.",
        "rows": rows,
        "problems": problems,
        "notes": [f"Ringway, {name}: {why}" for name, why in sorted(reasons.items())],
    }
