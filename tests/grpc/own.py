"""Calls that Ringway ends itself: the status that clients of gRPC and of gRPC-Web get, and the metrics of calls by
method."""

import re
import urllib.request

import cases
import web
from cases import Message, equal, eventually, messages

DEADLINE, UNIMPLEMENTED, DENIED, UNAVAILABLE, UNAUTHENTICATED = 4, 12, 7, 14, 16
# For each service: the status of a call to it, and words that the text of the status contains.
REFUSALS = {
    "token": (UNAUTHENTICATED, "token"),
    "forbidden": (DENIED, "access denied by policy"),
    "nowhere": (UNIMPLEMENTED, "no route matched"),
    "dead": (UNAVAILABLE, "refused the connection"),
    "empty": (UNAVAILABLE, "no endpoint"),
    "wrong": (UNAVAILABLE, "endpoint"),
    "slow": (DEADLINE, "within the timeout"),
}
SERVICES = ["token", "forbidden", "dead", "empty", "wrong", "slow", "silent"]
# The public key of RFC 7517 A.1. Nobody has its private key, so no token is valid.
KEYS = ('{"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "1", '
        '"x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}')


def configuration(plain, secure, nobody, silent, keys):
    """One service for each kind of refusal. The header `x-to` of a call selects the service."""
    rules = "".join(f"  - {{match: {{headers: {{x-to: {name}}}}}, to: {name}}}\n" for name in [*SERVICES, "app"])
    return f"""routes:
  '*':
{rules}services:
  app: {{protocol: grpc, endpoints: ['127.0.0.1:{plain}']}}
  token: {{protocol: grpc, endpoints: ['127.0.0.1:{plain}'], jwt: id}}
  forbidden: {{protocol: grpc, endpoints: ['127.0.0.1:{plain}']}}
  dead: {{protocol: grpc, endpoints: ['127.0.0.1:{nobody}']}}
  empty: {{protocol: grpc, endpoints: []}}
  # Ringway sends plain text to this endpoint, which expects TLS.
  wrong: {{protocol: grpc, endpoints: ['127.0.0.1:{secure}']}}
  silent: {{protocol: grpc, endpoints: ['127.0.0.1:{silent}']}}
  slow: {{protocol: grpc, endpoints: ['127.0.0.1:{silent}'], timeout: 300ms}}
jwt: {{id: {{issuer: probe, jwks: {{file: {keys}}}}}}}
authorization: [{{name: closed, action: deny, to: {{service: forbidden}}}}]
"""


def refused(port):
    """Makes a call of each client to each refusing service. Returns the failures."""
    failures = []
    with cases.channel(f"127.0.0.1:{port}") as channel:
        stub = cases.stub_of(channel)
        clients = [("gRPC", lambda *ask: by_grpc(stub, *ask))]
        clients += [(f"gRPC-Web{' as text' if text else ''} by {client.name}",
                     lambda *ask, one=client(port, text): by_web(one, *ask)) for client, text in web.CLIENTS]
        for name, client in clients:
            wrong = []
            for service, (code, words) in REFUSALS.items():
                try:
                    found = client(service)
                    equal((found[0], words in found[1]), (code, True), f"{service}: {found}")
                except Exception as error:
                    wrong.append(f"refusals to {name}: {service}: {error!r:.300}")
            if name != "gRPC":
                # Not for gRPC: its client ends the call at the deadline without waiting for the status.
                try:
                    found = client("silent", [("grpc-timeout", "300m")])
                    equal((found[0], "within the timeout" in found[1]), (DEADLINE, True), f"grpc-timeout: {found}")
                except Exception as error:
                    wrong.append(f"refusals to {name}: grpc-timeout: {error!r:.300}")
            print(f"refusals to {name}: {len(REFUSALS) - len(wrong)} of {len(REFUSALS)}", flush=True)
            failures += wrong
    return failures


def by_grpc(stub, service):
    try:
        stub.Unary(Message(), metadata=[("x-to", service)], timeout=cases.PATIENCE_S)
    except cases.grpc.RpcError as error:
        return error.code().value[0], error.details()
    raise AssertionError("it was answered")


def by_web(client, service, fields=()):
    answer = client.call("Unary", Message(), fields=[("x-to", service), *fields])
    equal((answer.status, answer.said()), (200, []), "head")
    equal(answer.field("content-type"), client.content_type.removesuffix("+proto"), "content type")
    return answer.end()[:2]


def counted(admin, port):
    """Makes known calls, and compares the metrics with them."""
    with cases.channel(f"127.0.0.1:{port}") as channel:
        stub = cases.stub_of(channel)
        to = [("x-to", "app")]
        for _ in range(3):
            stub.Unary(Message(), metadata=to)
        stub.Upload((Message() for _ in range(7)), metadata=to)
        equal(len(list(stub.Download(Message(count=11), metadata=to))), 11, "messages")
        equal(len(list(stub.Chat((Message() for _ in range(4)), metadata=to))), 4, "messages")
        cases.fails(lambda: stub.Unary(Message(wish=messages.FAIL), metadata=to), cases.grpc.StatusCode.FAILED_PRECONDITION)
        late = stub.Download(Message(wish=messages.FAIL_LATE), metadata=to)
        cases.fails(lambda: list(late), cases.grpc.StatusCode.FAILED_PRECONDITION)
        # Two messages arrive before the call is cancelled, so Ringway has sent the request.
        hanging = stub.Download(Message(count=2, wish=messages.HANG), metadata=to)
        equal([next(hanging).count for _ in range(2)], [0, 1], "what came before")
        hanging.cancel()
        cases.fails(lambda: channel.unary_unary("/ringway.probe.Probe/Nothing")(b"", metadata=to),
                    cases.grpc.StatusCode.UNIMPLEMENTED)
    for client, text in web.CLIENTS:
        one = client(port, text)
        one.call("Unary", Message(), fields=to)
        one.call("Download", Message(count=5), fields=to)
        one.call("Upload", *[Message()] * 6, fields=to)
        one.call("Unary", Message(), fields=[("x-to", "slow")])
        one.call("Unary", Message(), fields=[("x-to", "dead")])
    wanted = {
        ("requests", "app", "ringway.probe.Probe/Unary", "0"): 3 + 4,
        ("requests", "app", "ringway.probe.Probe/Unary", "9"): 1,
        ("requests", "app", "ringway.probe.Probe/Upload", "0"): 1 + 4,
        ("requests", "app", "ringway.probe.Probe/Download", "0"): 1 + 4,
        ("requests", "app", "ringway.probe.Probe/Download", "1"): 1,
        ("requests", "app", "ringway.probe.Probe/Download", "9"): 1,
        ("requests", "app", "ringway.probe.Probe/Chat", "0"): 1,
        ("requests", "app", "other", "12"): 1,
        # `refused` made the other 5 of each.
        ("requests", "slow", "ringway.probe.Probe/Unary", "4"): 5 + 4,
        ("requests", "dead", "ringway.probe.Probe/Unary", "14"): 5 + 4,
        ("request_messages", "app", "ringway.probe.Probe/Unary"): 3 + 1 + 4,
        ("request_messages", "app", "ringway.probe.Probe/Upload"): 7 + 4 * 6,
        ("request_messages", "app", "ringway.probe.Probe/Download"): 3 + 4,
        ("request_messages", "app", "ringway.probe.Probe/Chat"): 4,
        ("request_messages", "slow", "ringway.probe.Probe/Unary"): 5 + 4,
        ("response_messages", "app", "ringway.probe.Probe/Unary"): 3 + 4,
        ("response_messages", "app", "ringway.probe.Probe/Upload"): 1 + 4,
        ("response_messages", "app", "ringway.probe.Probe/Download"): 11 + 1 + 2 + 4 * 5,
        ("response_messages", "app", "ringway.probe.Probe/Chat"): 4,
        ("response_messages", "slow", "ringway.probe.Probe/Unary"): 0,
    }
    last = {}

    def all_right():
        last.update(shown(admin))
        return all(last.get(series) == value for series, value in wanted.items())

    try:
        eventually("the numbers", all_right)
    except AssertionError:
        wrong = {series: (last.get(series), value) for series, value in wanted.items() if last.get(series) != value}
        raise AssertionError(f"shown, wanted: {wrong}") from None
    of_calls = sum(value for series, value in wanted.items() if series[:2] == ("requests", "app"))
    equal(sum(value for series, value in last.items() if series[:2] == ("requests", "app")), of_calls, "no others")


def shown(admin):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=cases.PATIENCE_S) as answer:
        page = answer.read().decode()
    found = {}
    for name, labels, value in re.findall(r"^ringway_grpc_(\w+)_total\{(.*)\} (\S+)$", page, re.MULTILINE):
        found[(name, *re.findall(r'="([^"]*)"', labels))] = int(float(value))
    return found
