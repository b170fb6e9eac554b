"""A server with an address for the open protocols, and ways to ask it."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import Server

PYTHON = os.environ.get("MODELYARD_OPEN_PYTHON")

# A model of the OpenAI protocol. Yields what its framework would: a line of JSON for each piece.
CHAT = """
import json

def model_fn(model_dir): return None

def transform_fn(model, body, content_type, accept):
    request = json.loads(body)
    common = {"id": "c1", "created": 1, "model": request["model"]}
    if "prompt" in request:
        choice = {"index": 0, "text": request["prompt"] + "!", "finish_reason": "stop"}
        return json.dumps({**common, "object": "text_completion", "choices": [choice]}), "application/json"
    words = request["messages"][-1]["content"].split()
    if request.get("stream"):
        def pieces():
            for word in words:
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                yield json.dumps({**common, "object": "chat.completion.chunk", "choices": [choice]}) + "\\n"
        return pieces(), "application/jsonlines"
    choice = {"index": 0, "message": {"role": "assistant", "content": " ".join(words)}, "finish_reason": "stop"}
    return json.dumps({**common, "object": "chat.completion", "choices": [choice]}), "application/json"
"""


class OpenServer(Server):
    """A server that speaks the open protocols at the root of `open_address`."""

    def __init__(self, data_dir):
        super().__init__(data_dir, "--open-protocols", "127.0.0.1:0")

    def start(self):
        super().start()
        said = next(line for line in self.announced if "Open inference protocols" in line)
        self.open_address = said.split(" at ")[1].strip()
        return self


def ask(*words):
    """What one of `open_clients.py` has seen."""
    if not PYTHON:
        pytest.fail("MODELYARD_OPEN_PYTHON must name a Python with tests/clients/requirements-open.txt")
    done = subprocess.run(
        [PYTHON, Path(__file__).parent / "open_clients.py", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def host(address):
    return address.split("//")[1]


def call(url, key=None, body=None, **headers):
    """Status and JSON of an answer."""
    if key:
        headers["Authorization"] = "Bearer " + key
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
