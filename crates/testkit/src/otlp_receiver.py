"""An OpenTelemetry consumer on the official protobuf definitions: gRPC and HTTP, each on a port of its own.

Prints one JSON value a line: first the ports, then each request as it came. An HTTP request whose number (from 1) is in
the arguments is answered with 503.
"""

import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

LOCK = threading.Lock()
FAILING = {int(number) for number in sys.argv[1:]}
COUNT = 0


def say(value):
    with LOCK:
        print(json.dumps(value), flush=True)


def show(how, message, headers):
    say({"how": how, "kind": type(message).__name__, "headers": headers, "message": MessageToDict(message)})


class Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def Export(self, request, context):
        show("grpc", request, dict(context.invocation_metadata()))
        return logs_service_pb2.ExportLogsServiceResponse()


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        show("grpc", request, dict(context.invocation_metadata()))
        return metrics_service_pb2.ExportMetricsServiceResponse()


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        show("grpc", request, dict(context.invocation_metadata()))
        return trace_service_pb2.ExportTraceServiceResponse()


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global COUNT
        body = self.rfile.read(int(self.headers["content-length"]))
        COUNT += 1
        if COUNT in FAILING:
            self.answer(503, b"")
            return
        kinds = {
            "/base/v1/logs": (logs_service_pb2.ExportLogsServiceRequest, logs_service_pb2.ExportLogsServiceResponse),
            "/base/v1/metrics": (
                metrics_service_pb2.ExportMetricsServiceRequest,
                metrics_service_pb2.ExportMetricsServiceResponse,
            ),
            "/base/v1/traces": (
                trace_service_pb2.ExportTraceServiceRequest,
                trace_service_pb2.ExportTraceServiceResponse,
            ),
        }
        request, response = kinds[self.path]
        show("http", request.FromString(body), {k.lower(): v for k, v in self.headers.items()})
        self.answer(200, response().SerializeToString())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
http = ThreadingHTTPServer(("127.0.0.1", 0), Http)
threading.Thread(target=http.serve_forever, daemon=True).start()
say({"grpc": port, "http": http.server_address[1]})
sys.stdin.read()  # until the test ends
