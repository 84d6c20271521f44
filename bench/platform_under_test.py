"""Starts a platform for a benchmark in a directory of its own, drives it over its API and git, and ends it again.

Nothing here measures. Python's standard library only.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def executable():
    """The release build, made if need be, or the one that DOZEN_BENCH_EXECUTABLE names."""
    if given := os.environ.get("DOZEN_BENCH_EXECUTABLE"):
        return Path(given).resolve()
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return ROOT / "target/release/dozen"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pss_kb(pid):
    """Proportional set size of one process in kB; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1))


class Platform:
    def __init__(self, exe=None, env=None):
        self.exe = str(exe or executable())
        self.dir = Path(tempfile.mkdtemp(prefix="dozen-bench-"))
        self.data = self.dir / "data"
        ports = [free_port() for _ in range(4)]
        self.api_port, self.tls_port, self.router_port, self.router_tls_port = ports
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("DOZEN_", "HEROKU_"))}
        self.env |= {
            "DOZEN_DATA_DIR": str(self.data),
            "DOZEN_API_LISTEN": f"127.0.0.1:{self.api_port}",
            "DOZEN_TLS_LISTEN": f"127.0.0.1:{self.tls_port}",
            "DOZEN_ROUTER_LISTEN": f"127.0.0.1:{self.router_port}",
            "DOZEN_ROUTER_TLS_LISTEN": f"127.0.0.1:{self.router_tls_port}",
            "DOZEN_SSH_LISTEN": f"127.0.0.1:{free_port()}",
            "DOZEN_BUILD_ENV": "PIP_INDEX_URL,HTTPS_PROXY,HTTP_PROXY,NO_PROXY",
            "DOZEN_LIMIT_GIT_REQUESTS_PER_HOUR": "100000",
            "DOZEN_LIMIT_API_CALLS_PER_HOUR": "1000000",
        } | (env or {})
        self.log = open(self.dir / "server.log", "wb")
        self.server = subprocess.Popen([self.exe, "server"], env=self.env, stdout=self.log, stderr=subprocess.STDOUT)
        self.wait(lambda: self.up(), 60, "the API to answer")
        self.token = json.loads((self.data / "admin.json").read_text())["api_key"]

    def up(self):
        if self.server.poll() is not None:
            raise SystemExit(f"the platform ended: see {self.dir}/server.log")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.api_port}/schema", timeout=1).read(1)
            return (self.data / "admin.json").exists()
        except OSError:
            return False

    @staticmethod
    def wait(condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"waited {seconds} s in vain for {what}")
            time.sleep(0.02)

    def api(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.api_port}{path}", method=method)
        request.add_header("Accept", "application/vnd.heroku+json; version=3")
        request.add_header("Authorization", f"Bearer {self.token}")
        data = None
        if body is not None:
            request.add_header("Content-Type", "application/json")
            data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}")
        return json.loads(text) if text else None

    def git_env(self):
        return self.env | {
            "GIT_SSL_CAINFO": str(self.data / "tls/ca.pem"),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }

    def remote(self, app):
        return f"https://bench:{self.token}@localhost:{self.tls_port}/{app}.git"

    def get(self, app, path="/"):
        """Status and body of a request to an app, (0, "") when no connection was had."""
        try:
            with socket.create_connection(("127.0.0.1", self.router_port), timeout=5) as s:
                s.sendall(f"GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\nConnection: close\r\n\r\n".encode())
                text = b""
                while chunk := s.recv(65536):
                    text += chunk
        except OSError:
            return 0, ""
        head, _, body = text.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0
        return status, body.decode(errors="replace")

    def logs(self, app):
        """The app's last lines as (seconds since 1970, "source[process]", text)."""
        from datetime import datetime

        session = self.api("POST", f"/apps/{app}/log-sessions", {"lines": 1500, "tail": False})
        with urllib.request.urlopen(session["logplex_url"], timeout=30) as answer:
            text = answer.read().decode(errors="replace")
        lines = []
        for line in text.splitlines():
            if m := re.match(r"data: (\S+) (\S+\[[^]]+\]): ?(.*)", line):
                lines.append((datetime.fromisoformat(m[1]).timestamp(), m[2], m[3]))
        return lines

    def processes(self):
        """(pid, argv) of the platform's own processes: parent, roles, shims and the shims' first child."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                exe = os.readlink(entry / "exe")
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                env = (entry / "environ").read_bytes()
            except OSError:
                continue
            if exe != self.exe or b"static-server" in argv:
                continue
            mine = int(entry.name) == self.server.pid or str(self.data).encode() in b"\0".join(argv) + env
            if mine:
                found.append((int(entry.name), argv))
        return found

    def stop(self):
        subprocess.run([self.exe, "stop", "--with-dynos"], env=self.env, check=False, timeout=120)
        try:
            self.server.wait(60)
        except subprocess.TimeoutExpired:
            self.server.kill()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def spread(values):
    """min, median, max of a list of seconds, as text in milliseconds."""
    v = sorted(values)
    return f"{1000 * v[len(v) // 2]:7.1f} ms  ({1000 * v[0]:.1f} to {1000 * v[-1]:.1f}, n={len(v)})"


def median(values):
    return sorted(values)[len(values) // 2]
