"""Calls of gRPC-Web (PROTOCOL-WEB) by HTTP/1.1 and by HTTP/2, binary and as text, to a grpcio server behind Ringway.

Each case takes a `Web` client, and the stub of a gRPC channel that goes to the server without Ringway. It raises when
it fails.
"""

import base64
import http.client
import socket
import threading
import urllib.parse

import h2.connection
import h2.events

from cases import DETAILS, METADATA, PATIENCE_S, Message, equal, eventually, messages, told

TRAILERS = 0x80


class Answer:
    """A response: its status, its fields with names in lower case, and the messages and trailers in its body."""

    def __init__(self, status, fields, body, text):
        self.status, self.fields = status, [(name.lower(), value) for name, value in fields]
        self.messages, self.trailers = taken_apart(decoded(body) if text else body)

    def field(self, name):
        values = [value for known, value in self.fields if known == name]
        equal(len(values) <= 1, True, f"{name} once at most, in {self.fields}")
        return values[0] if values else None

    def said(self):
        """The messages in the response."""
        return [Message.FromString(data) for data in self.messages]

    def end(self):
        """The code, the text and the metadata that the call ended with. They stand in the trailers, or in the head of a
        response without a body."""
        in_head = self.field("grpc-status") is not None
        equal(in_head, self.trailers is None, "the status is said once")
        if in_head:
            equal(self.messages, [], "messages where the head says it all")
        rest = dict(self.fields if in_head else self.trailers)
        return int(rest.pop("grpc-status")), urllib.parse.unquote(rest.get("grpc-message", "")), rest


def message(data, flag=0):
    return bytes([flag]) + len(data).to_bytes(4, "big") + data


def taken_apart(body):
    """Splits a body into its messages and the trailers after them."""
    found, trailers = [], None
    while body:
        equal(trailers, None, "nothing follows the trailers")
        flag, length = body[0], int.from_bytes(body[1:5], "big")
        data, body = body[5:5 + length], body[5 + length:]
        equal(len(data), length, "a whole message")
        if flag == TRAILERS:
            lines = data.decode().split("\r\n")
            equal(lines.pop(), "", "each line of the trailers ends")
            trailers = [tuple(line.split(": ", 1)) if ": " in line else tuple(line.split(":", 1)) for line in lines]
        else:
            equal(flag, 0, "the flag of a message")
            found.append(data)
    return found, trailers


def decoded(text):
    """Decodes pieces of base64 that follow each other. Each may have its own padding."""
    return b"".join(base64.b64decode(text[at:at + 4], validate=True) for at in range(0, len(text), 4))


class Web:
    """A client of gRPC-Web that sends its calls to a port."""

    def __init__(self, port, text):
        self.port, self.text = port, text
        self.content_type = "application/grpc-web-text+proto" if text else "application/grpc-web+proto"

    def call(self, method, *requests, fields=()):
        """Calls a method of the service Probe."""
        sent = [message(request.SerializeToString()) for request in requests]
        return Answer(*self.post(f"/ringway.probe.Probe/{method}", b"".join(map(self.encoded, sent)), fields), self.text)

    def encoded(self, data):
        return base64.b64encode(data) if self.text else data

    def fields(self, more):
        return [("content-type", self.content_type), ("x-grpc-web", "1"), *more]


class ByHttp1(Web):
    """http.client, which knows nothing of HTTP/2."""
    name = "HTTP/1.1"

    def __init__(self, port, text):
        super().__init__(port, text)
        # All calls use this connection. This fails if a response does not end where it says.
        self.kept = self.connection()

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def request(self, connection, path, body, fields):
        connection.putrequest("POST", path)
        for name, value in [*self.fields(fields), ("content-length", len(body))]:
            connection.putheader(name, value)
        connection.endheaders(body)

    def post(self, path, body, fields):
        self.request(self.kept, path, body, fields)
        answer = self.kept.getresponse()
        return answer.status, answer.getheaders(), answer.read()

    def stream(self, path, body):
        """Starts a call. Returns an iterator over the portions of the response as they arrive, and a function that
        breaks the call off."""
        connection = self.connection()
        self.request(connection, path, body, ())
        wire = connection.sock
        answer = connection.getresponse()
        return iter(lambda: answer.read1(1 << 16), b""), lambda: wire.shutdown(socket.SHUT_RDWR)


class ByHttp2(Web):
    """The package h2, which knows nothing of gRPC; one connection for each call."""
    name = "HTTP/2"

    def begin(self, path, body, more):
        """Starts a call, and gives the events that h2 reports until the stream ends."""
        wire = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        connection.increment_flow_control_window(1 << 30)
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
        connection.send_headers(1, [*head, *self.fields(more)])
        connection.increment_flow_control_window(1 << 30, 1)

        def events():
            left = memoryview(body)
            while True:
                while left is not None and (not left or connection.local_flow_control_window(1) > 0):
                    size = min(len(left), connection.local_flow_control_window(1), connection.max_outbound_frame_size)
                    connection.send_data(1, bytes(left[:size]), end_stream=size == len(left))
                    left = left[size:] if size < len(left) else None
                wire.sendall(connection.data_to_send())
                received = wire.recv(1 << 16)
                equal(received != b"", True, "the connection stays open until the answer has ended")
                for event in connection.receive_data(received):
                    yield event
                    if isinstance(event, h2.events.StreamEnded):
                        return

        return wire, events()

    def post(self, path, body, fields):
        wire, events = self.begin(path, body, fields)
        head, read = None, b""
        with wire:
            for event in events:
                # gRPC-Web puts the trailers into the body: browsers do not show HTTP trailers.
                equal(isinstance(event, (h2.events.StreamReset, h2.events.TrailersReceived)), False, repr(event))
                if isinstance(event, h2.events.ResponseReceived):
                    head = [(name.decode(), value.decode()) for name, value in event.headers]
                if isinstance(event, h2.events.DataReceived):
                    read += event.data
        status, *fields = head
        return int(status[1]), fields, read

    def stream(self, path, body):
        wire, events = self.begin(path, body, ())
        return (event.data for event in events if isinstance(event, h2.events.DataReceived)), wire.close


def unary(web, _):
    asked = Message(body=b"hello", count=7)
    answer = web.call("Unary", asked)
    equal((answer.status, answer.field("content-type")), (200, web.content_type.replace("+proto", "")), "head")
    equal((answer.said(), answer.end()[0]), ([asked], 0), "answer")
    equal((web.call("Unary", Message()).said()), [Message()], "an empty answer")


def metadata(web, _):
    asked = [(name, base64.b64encode(value).decode() if name.endswith("-bin") else value) for name, value in METADATA]
    answer = web.call("Unary", Message(), fields=asked)
    unpadded = lambda pairs: sorted((name, part.strip().rstrip("=")) for name, value in pairs for part in value.split(","))
    mine = lambda pairs, before: [(n.removeprefix(before), v) for n, v in pairs if n.startswith(before + "x-")
                                  and n.removeprefix(before) in dict(METADATA)]
    equal(unpadded(mine(answer.fields, "")), unpadded(asked), "metadata before")
    equal(unpadded(mine(answer.trailers, "late-")), unpadded(asked), "metadata after")


def large(web, _):
    asked = Message(body=bytes(range(256)) * 4096)
    equal(web.call("Unary", asked).said() == [asked], True, "1 MiB to and fro")


def server_stream(web, _):
    answer = web.call("Download", Message(body=b"y" * 1000, count=500))
    equal([said.count for said in answer.said()], list(range(500)), "the order")
    equal(answer.end()[0], 0, "status")
    empty = web.call("Download", Message(count=0))
    equal((empty.said(), empty.end()[0]), ([], 0), "an empty stream")


def messages_come_at_once(web, stub):
    """Three messages arrive although the server does not end its response. Then the client leaves, and the server sees
    that."""
    hung, cancelled = told(stub)
    body = web.encoded(message(Message(count=3, body=b"z" * 30, wish=messages.HANG).SerializeToString()))
    portions, stop = web.stream("/ringway.probe.Probe/Download", body)
    came = b""
    one = len(message(Message(count=1, body=b"z" * 30).SerializeToString()))
    # The first message is 2 bytes shorter: its count is 0, which protobuf leaves out. Base64 turns 3 bytes into 4
    # characters, so up to 2 bytes of text may wait for the third.
    wanted = 3 * one - 2
    for portion in portions:
        came += portion
        if len(decoded(came[:len(came) // 4 * 4]) if web.text else came) >= wanted - (2 if web.text else 0):
            break
    else:
        raise AssertionError(f"the answer ended with {came}")
    eventually("the server to have the call", lambda: told(stub)[0] == hung + 1)
    stop()
    eventually("the server to see that the client left", lambda: told(stub)[1] == cancelled + 1)


def client_stream(web, _):
    """In text, the client encodes each message as a separate piece of base64."""
    answer = web.call("Upload", *(Message(body=b"x" * size) for size in range(50)))
    equal([(said.count, said.body) for said in answer.said()], [(50, b"1225")], "what arrived")


def error_in_trailers(web, _):
    answer = web.call("Download", Message(body=b"first", wish=messages.FAIL_LATE))
    equal([said.body for said in answer.said()], [b"first"], "the message before")
    code, details, rest = answer.end()
    equal((code, details), (9, DETAILS), "status")
    equal(rest["why-bin"].rstrip("="), "AP8", "metadata of an error")
    equal(answer.trailers is not None, True, "in the body")


def trailers_only(web, _):
    answer = web.call("Unary", Message(wish=messages.FAIL))
    equal((answer.status, answer.field("content-type")), (200, web.content_type.replace("+proto", "")), "head")
    code, details, rest = answer.end()
    equal((code, details, answer.said()), (9, DETAILS, []), "status")
    equal(rest["why-bin"].rstrip("="), "AP8", "metadata of an error")


def unknown_method(web, _):
    equal(web.call("Nothing").end()[0], 12, "UNIMPLEMENTED")


def deadline_passes(web, stub):
    _, cancelled = told(stub)
    answer = web.call("Unary", Message(wish=messages.HANG), fields=[("grpc-timeout", "300m")])
    equal((answer.status, answer.end()[0]), (200, 4), "DEADLINE_EXCEEDED")
    eventually("the server to see that the deadline passed", lambda: told(stub)[1] == cancelled + 1)


def deadline_passes_in_a_stream(web, stub):
    """The client gets the messages that were sent before the deadline, and then the status."""
    _, cancelled = told(stub)
    asked = Message(count=3, body=b"z", wish=messages.HANG)
    answer = web.call("Download", asked, fields=[("grpc-timeout", "300m")])
    equal([said.count for said in answer.said()], [0, 1, 2], "what came before")
    equal(answer.end()[0], 4, "DEADLINE_EXCEEDED")
    eventually("the server to see that the deadline passed", lambda: told(stub)[1] == cancelled + 1)


def deadline_reaches_server(web, _):
    left = web.call("Unary", Message(wish=messages.TELL_DEADLINE), fields=[("grpc-timeout", "15S")]).said()[0].count
    # The server's grpcio rounds the timeout up, by 1 % also without a proxy.
    if not 0 < left <= 15_200_000:
        raise AssertionError(f"{left} µs are left of 15 s")


def many_at_once(web, _):
    wrong = []

    def several():
        mine = type(web)(web.port, web.text)
        try:
            for number in range(10):
                equal(mine.call("Unary", Message(count=number)).said(), [Message(count=number)], "answer")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=several) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(wrong, [], "calls side by side")


CASES = [unary, metadata, large, server_stream, messages_come_at_once, client_stream, error_in_trailers,
         trailers_only, unknown_method, deadline_passes, deadline_passes_in_a_stream, deadline_reaches_server, many_at_once]
CLIENTS = [(client, text) for client in (ByHttp1, ByHttp2) for text in (False, True)]
