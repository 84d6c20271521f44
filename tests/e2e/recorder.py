"""Writes down each signal with its time in microseconds since 1970, then stays, or leaves with status 7."""

import signal
import sys
import time


def note(number, _frame):
    print(signal.Signals(number).name, time.time_ns() // 1000, flush=True)
    if sys.argv[1] == "leave":
        sys.exit(7)


for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    try:
        signal.signal(number, note)
    except OSError:
        pass  # the C library keeps some for itself
print("up", time.time_ns() // 1000, flush=True)
while True:
    time.sleep(60)
