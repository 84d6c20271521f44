"""When cronsim says that schedules are due.

Reads lines of a time zone and an expression with a tab between, after a first line with the beginning and the end of
what is asked for, in seconds since 1970. Answers each line with those times, in seconds since 1970.
"""

import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim

begin, end = map(int, sys.stdin.readline().split())
for line in sys.stdin:
    zone, expression = line.rstrip("\n").split("\t")
    before = datetime.fromtimestamp(begin, timezone.utc) - timedelta(seconds=1)
    times = []
    for due in CronSim(expression, before.astimezone(ZoneInfo(zone))):
        at = int(due.timestamp())
        if at > end:
            break
        times.append(at)
    print(*times, flush=True)
