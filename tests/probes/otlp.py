#!/usr/bin/env python3
"""A collector of traces and logs, from the official protobuf definitions: OTLP over HTTP and gRPC.

  tests/probes/otlp.py HTTP-PORT GRPC-PORT [MODE [CERTIFICATE KEY]]

It prints one JSON object per span or log record. MODE: `normal`; `partial` refuses one of each export;
`error` answers 503; `garbage` answers bytes that are no message; `silent` never answers; `slow` takes half a
second. With a certificate, gRPC has TLS.
"""

import json
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as log_messages
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as log_service
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
    for resource in getattr(request, "resource_spans", ()):
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
    for resource in getattr(request, "resource_logs", ()):
        for scope in resource.scope_logs:
            for record in scope.log_records:
                line = json.dumps({
                    "way": way,
                    "log": True,
                    "resource": attributes_of(resource.resource.attributes),
                    "time": record.time_unix_nano,
                    "observed": record.observed_time_unix_nano,
                    "severity": record.severity_text,
                    "severity_number": record.severity_number,
                    "body": value_of(record.body),
                    "trace": record.trace_id.hex(),
                    "attributes": attributes_of(record.attributes),
                })
                with LOCK:
                    print(line, flush=True)
    if hasattr(request, "resource_logs"):
        answer = log_messages.ExportLogsServiceResponse()
        if MODE == "partial":
            answer.partial_success.rejected_log_records = 1
            answer.partial_success.error_message = "one is enough"
        return answer
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
        kinds = {
            "/v1/traces": messages.ExportTraceServiceRequest,
            "/v1/logs": log_messages.ExportLogsServiceRequest,
        }
        assert self.headers["content-type"] == "application/x-protobuf"
        request = kinds[self.path].FromString(body)
        answer = tell(request, "http").SerializeToString()
        if MODE == "slow":
            time.sleep(0.5)
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


class GrpcLogs(log_service.LogsServiceServicer):
    Export = Grpc.Export


def main():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service.add_TraceServiceServicer_to_server(Grpc(), server)
    log_service.add_LogsServiceServicer_to_server(GrpcLogs(), server)
    address = f"127.0.0.1:{sys.argv[2]}"
    if len(sys.argv) > 5:
        certificate, key = (open(path, "rb").read() for path in sys.argv[4:6])
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        assert server.add_secure_port(address, credentials) > 0
    else:
        assert server.add_insecure_port(address) > 0
    server.start()
    http = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Http)
    print(json.dumps({"ready": True}), flush=True)
    http.serve_forever()


main()
