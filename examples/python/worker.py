"""A worker that counts until it is told to stop."""

import itertools
import os
import signal
import threading

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
interval = float(os.environ.get("WORKER_INTERVAL", "5"))

for number in itertools.count(1):
    print(f"worker: job {number} done", flush=True)
    if stopped.wait(interval):
        print("worker: stopping", flush=True)
        break
