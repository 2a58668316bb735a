"""A gRPC server that does what the messages ask for: server.py PLAIN_PORT TLS_PORT CERT KEY"""

import signal
import sys
import threading
from concurrent import futures

import grpc

messages, services = grpc.protos_and_services("probe.proto")
LARGEST = 8 << 20
PATIENCE_S = 20


class Probe(services.ProbeServicer):
    def __init__(self):
        self.lock = threading.Condition()
        self.hung = 0
        self.cancelled = 0
        self.met = 0

    def greet(self, context):
        """Returns the metadata of the client before the first message and, renamed, after the last one."""
        mine = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        context.send_initial_metadata(mine)
        context.set_trailing_metadata([("late-" + key, value) for key, value in mine])

    def grant(self, request, context):
        if request.wish == messages.FAIL:
            context.set_trailing_metadata([("why-bin", b"\x00\xff")])
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today, \u2603 100%")
        self.greet(context)
        if request.wish == messages.TELL_DEADLINE:
            return messages.Message(count=int((context.time_remaining() or 0) * 1e6))
        if request.wish == messages.HANG:
            self.hang(context)
        if request.wish == messages.MEET:
            self.meet(request.count)
        if request.wish == messages.TELL_HUNG:
            with self.lock:
                return messages.Message(count=self.hung, cancelled=self.cancelled)
        return messages.Message(body=request.body, count=request.count)

    def hang(self, context):
        with self.lock:
            self.hung += 1
        gone = threading.Event()
        if context.add_callback(gone.set) and not gone.wait(PATIENCE_S):
            return
        with self.lock:
            self.cancelled += 1

    def meet(self, count):
        with self.lock:
            self.met += 1
            self.lock.notify_all()
            self.lock.wait_for(lambda: self.met >= count, PATIENCE_S)

    def Unary(self, request, context):
        return self.grant(request, context)

    def Upload(self, requests, context):
        self.greet(context)
        count, size = 0, 0
        for request in requests:
            if request.wish == messages.HANG:
                self.hang(context)
            count, size = count + 1, size + len(request.body)
        return messages.Message(body=str(size).encode(), count=count)

    def Download(self, request, context):
        if request.wish == messages.FAIL_LATE:
            yield messages.Message(body=request.body)
            context.set_trailing_metadata([("why-bin", b"\x00\xff")])
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today, \u2603 100%")
        self.greet(context)
        for number in range(request.count):
            yield messages.Message(body=request.body, count=number)
        if request.wish == messages.HANG:
            self.hang(context)

    def Chat(self, requests, context):
        self.greet(context)
        for request in requests:
            yield messages.Message(body=request.body, count=request.count)


def main():
    plain, tls, certificate, key = sys.argv[1:5]
    options = [("grpc.max_receive_message_length", LARGEST), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(256), options=options)
    services.add_ProbeServicer_to_server(Probe(), server)
    server.add_insecure_port(f"127.0.0.1:{plain}")
    with open(key, "rb") as key_file, open(certificate, "rb") as certificate_file:
        pair = (key_file.read(), certificate_file.read())
    server.add_secure_port(f"127.0.0.1:{tls}", grpc.ssl_server_credentials([pair]))
    server.start()
    # At SIGTERM the server sends GOAWAY, and the open calls go on to their end.
    signal.signal(signal.SIGTERM, lambda *_: server.stop(PATIENCE_S))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
