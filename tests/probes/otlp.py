#!/usr/bin/env python3
"""A collector of traces, from the official protobuf definitions: OTLP over HTTP and gRPC.

  tests/probes/otlp.py HTTP-PORT GRPC-PORT [MODE]

It prints one JSON object per span. MODE: `normal`; `partial` refuses one span of each export; `error`
answers 503; `garbage` answers bytes that are no message; `silent` never answers.
"""

import json
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service

MODE = sys.argv[3] if len(sys.argv) > 3 else "normal"
LOCK = threading.Lock()


def value_of(value):
    return getattr(value, value.WhichOneof("value"))


def attributes_of(pairs):
    return {pair.key: value_of(pair.value) for pair in pairs}


def tell(request, way):
    """Prints the spans of an export, and returns the answer to it."""
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                line = json.dumps({
                    "way": way,
                    "resource": attributes_of(resource.resource.attributes),
                    "scope": scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "state": span.trace_state,
                    "name": span.name,
                    "kind": span.kind,
                    "flags": span.flags,
                    "begin": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "status": span.status.code,
                    "message": span.status.message,
                    "attributes": attributes_of(span.attributes),
                })
                with LOCK:
                    print(line, flush=True)
    answer = messages.ExportTraceServiceResponse()
    if MODE == "partial":
        answer.partial_success.rejected_spans = 1
        answer.partial_success.error_message = "one is enough"
    return answer


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if MODE == "silent":
            time.sleep(3600)
        assert self.path == "/v1/traces", self.path
        assert self.headers["content-type"] == "application/x-protobuf"
        request = messages.ExportTraceServiceRequest.FromString(body)
        answer = tell(request, "http").SerializeToString()
        if MODE == "garbage":
            answer = b"<html>\xff"
        self.send_response(503 if MODE == "error" else 200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Grpc(service.TraceServiceServicer):
    def Export(self, request, context):
        answer = tell(request, "grpc")
        if MODE == "error":
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return answer


def main():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service.add_TraceServiceServicer_to_server(Grpc(), server)
    assert server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}") > 0
    server.start()
    http = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Http)
    print(json.dumps({"ready": True}), flush=True)
    http.serve_forever()


main()
