"""Writes so many numbered lines, as fast as they are taken, each time it is signalled; part of the end-to-end tests."""

import os
import signal
import sys

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
name, lines, first = os.environ["DYNO"], int(sys.argv[1]), 1
print("ready", flush=True)
while True:
    signal.sigwait({signal.SIGUSR1})
    numbers = range(first, first + lines)
    left = "".join(f"{name} {number:08} {'x' * 60}\n" for number in numbers).encode()
    while left:
        left = left[os.write(1, left):]
    first += lines
