"""Both kinds of Python web app: write down each request's method and path when it begins, and read its body to the end."""

import os


def note(method, path):
    with open(os.environ["SEEN"], "a", encoding="latin-1") as seen:
        seen.write(f"{method} {path}\n")


def wsgi(environ, start_response):
    note(environ["REQUEST_METHOD"], environ["PATH_INFO"])
    try:
        while environ["wsgi.input"].read(65536):
            pass
    except OSError:
        pass
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"].removeprefix("lifespan.")
            await send({"type": f"lifespan.{kind}.complete"})
            if kind == "shutdown":
                return
    if scope["type"] != "http":
        return
    note(scope["method"], scope["path"])
    while (message := await receive()).get("more_body") and message["type"] == "http.request":
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
