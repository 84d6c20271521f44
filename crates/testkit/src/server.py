"""Answers requests about its own process; part of the end-to-end tests."""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/env":
            self.answer(200, json.dumps(dict(os.environ)))
        elif self.path == "/headers":
            self.answer(200, json.dumps({k.lower(): v for k, v in self.headers.items()}))
        elif self.path == "/crash":
            os._exit(3)
        elif self.path == "/drop":
            self.connection.close()
        elif self.path.startswith("/sleep/"):
            time.sleep(float(self.path.rsplit("/", 1)[1]))
            self.answer(200, "slept")
        elif self.path == "/socket":
            self.send_response(101)
            self.send_header("Upgrade", "echo")
            self.send_header("Connection", "upgrade")
            self.end_headers()
            while piece := self.rfile.read1(4096):
                self.wfile.write(piece)
            self.close_connection = True
        elif self.path.startswith("/file/"):
            try:
                self.answer(200, open("/" + self.path[len("/file/"):]).read())
            except OSError as error:
                self.answer(404, str(error))
        elif self.path.startswith("/write/"):
            open(self.path[len("/write/"):], "w").write("written")
            self.answer(200, "written")
        elif self.path.startswith("/print/"):
            print(self.path[len("/print/"):], flush=True)
            self.answer(200, "printed")
        else:
            self.answer(200, f"hello from {os.environ.get('DYNO')} {os.environ.get('MARK', '')}")

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self.answer(200, str(len(self.rfile.read(length))))

    def log_message(self, *_):
        pass


def stop(*_):
    print("asked to stop", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
print("listening", flush=True)
ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
