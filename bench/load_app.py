"""The app of bench/deploy-under-load: HTTP/1.1 with keep-alive, uploads and WebSockets, on asyncio alone.

Every answer names the release, and says whether the request came after this dyno had been told to stop. On SIGTERM it does what a good web server does: it takes no further
connections, finishes open requests, says goodbye on WebSockets (1001) and exits.
"""

import asyncio
import base64
import hashlib
import os
import signal
import time

RELEASE = os.environ.get("HEROKU_RELEASE_VERSION", "none").encode()
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
stopping = asyncio.Event()
told = []
busy = set()
idle = set()


async def upload(reader, headers):
    if headers.get(b"transfer-encoding") == b"chunked":
        total = 0
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            await reader.readexactly(size + 2)
            total += size
            if size == 0:
                return total
    length = int(headers.get(b"content-length", 0))
    left = length
    while left:
        left -= len(await reader.readexactly(min(left, 65536)))
    return length


async def websocket(reader, writer, headers):
    key = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + GUID).digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"Sec-WebSocket-Accept: " + key + b"\r\n\r\n")
    while True:
        head = asyncio.ensure_future(reader.readexactly(2))
        stop = asyncio.ensure_future(stopping.wait())
        await asyncio.wait({head, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not head.done():
            head.cancel()
            writer.write(b"\x88\x02\x03\xe9")  # going away
            await writer.drain()
            return
        first, length = head.result()
        mask = await reader.readexactly(4)
        data = await reader.readexactly(length & 0x7F)
        data = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
        if first & 0x0F == 8:
            writer.write(b"\x88\x00")
            return
        answer = RELEASE + b" " + data
        writer.write(bytes([0x81, len(answer)]) + answer)
        await writer.drain()


async def serve(reader, writer):
    task = asyncio.current_task()
    try:
        while not stopping.is_set():
            idle.add(task)
            line = await reader.readline()
            if not line:
                return
            idle.discard(task)
            busy.add(task)
            method, path, _ = line.split(b" ")
            headers = {}
            while (line := await reader.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                headers[name.strip().lower()] = value.strip()
            if headers.get(b"upgrade", b"").lower() == b"websocket":
                await websocket(reader, writer, headers)
                return
            # The router's clock is this machine's too; it writes whole milliseconds.
            came = int(headers.get(b"x-request-start", 0)) / 1000
            when = b"late" if told and came > told[0] + 0.002 else b"on-time"
            body = b"%s %d %s\n" % (RELEASE, await upload(reader, headers), when)
            if path.startswith(b"/slow"):
                await asyncio.sleep(0.2)
            last = b"Connection: close\r\n" if stopping.is_set() else b""
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), last, body))
            await writer.drain()
            busy.discard(task)
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass
    finally:
        idle.discard(task)
        busy.discard(task)
        writer.close()


def stop():
    told.append(time.time())
    stopping.set()


async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(os.environ["PORT"]), backlog=1024)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    await stopping.wait()
    server.close()
    for task in list(idle):
        task.cancel()
    while busy:
        await asyncio.wait(set(busy), timeout=1)
        for task in list(idle):
            task.cancel()
    os._exit(0)


asyncio.run(main())
