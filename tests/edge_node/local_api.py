"""The local API of an assistant over real HTTP, and the calls a test makes."""

import http.client
import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai

from edge_node import Assistant
from edge_node.api import make_app
from edge_node.config import ApiConfig
from edge_node.metrics import Watch
from edge_node.serve import make_server
from tests.edge_node.sharer_server import wait_until


class Api:
    """A running API and the calls a test makes."""

    def __init__(self, port: int, watch: Watch) -> None:
        self.port, self.watch = port, watch

    def call(
        self, body: object, method: str = "POST", path: str = "/v1/ask", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON body (a list of values for JSON lines) and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, sent, {"Content-Type": "application/json"} | headers)
        response = connection.getresponse()
        text = response.read().decode()
        found = {name.lower(): value for name, value in response.getheaders()}
        connection.close()
        if "jsonl" in found.get("content-type", ""):
            return response.status, [json.loads(line) for line in text.splitlines()], found
        is_json = "json" in found.get("content-type", "")
        return response.status, json.loads(text) if is_json else text, found

    def begin(self, body: object, length: int | None = None, path: str = "/v1/ask") -> socket.socket:
        """A question is sent over a socket of its own, and nobody reads yet. `length` is what is said of the body."""
        sent = json.dumps(body).encode()
        caller = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        head = (
            f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {length or len(sent)}\r\n"
        )
        caller.sendall(f"POST {path} HTTP/1.1\r\n".encode() + head.encode() + b"\r\n" + sent)
        return caller

    def is_full(self, body: object) -> bool:
        """Whether a question is turned away; one that has to wait leaves again."""
        caller = self.begin(body)
        answered, _, _ = select.select([caller], [], [], 0.5)
        full = bool(answered) and caller.recv(100).startswith(b"HTTP/1.1 503 ")
        caller.close()
        return full


@contextmanager
def serving_api(assistant: Assistant, body_s: float = 10.0, **api: Any) -> Iterator[Api]:
    config = ApiConfig(**{"max_body_bytes": 20_000, "at_once": 1, "max_waiting": 1} | api)
    app = make_app(assistant, config, body_s)
    server, listener = make_server(app), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield Api(listener.getsockname()[1], app.state.watch)
    finally:
        server.should_exit = True
        thread.join(20)


def client_of(api: Api, base: str = "/v1", key: str = "none", retries: int = 0) -> openai.OpenAI:
    """OpenAI's own client of a running API."""
    return openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}{base}", api_key=key, max_retries=retries)
