"""A page that says which dyno and release answered."""

import os

from flask import Flask, abort

app = Flask(__name__)


@app.get("/")
def index():
    greeting = os.environ.get("GREETING", "Hello")
    dyno = os.environ.get("DYNO", "nowhere")
    release = os.environ.get("HEROKU_RELEASE_VERSION", "no release")
    return f"{greeting} from {dyno}, {release}\n", {"Content-Type": "text/plain; charset=utf-8"}


@app.get("/env/<name>")
def variable(name):
    # Shown on request only, and only names that say they are meant for it.
    if not name.startswith("PUBLIC_"):
        abort(404)
    return os.environ.get(name, ""), {"Content-Type": "text/plain; charset=utf-8"}
