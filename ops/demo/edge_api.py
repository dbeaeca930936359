"""Asks an edge node's local HTTP API, with the standard library alone."""

import contextlib
import json
import urllib.error
import urllib.request
from typing import Any

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class AskFailed(RuntimeError):
    """The edge refused a question; the message is the edge's own."""


class EdgeApi:
    """The API at `address` ("host:port")."""

    def __init__(self, address: str, timeout_s: float = 180.0) -> None:
        self._url = f"http://{address}/v1/ask"
        self._timeout_s = timeout_s

    def ask(self, question: str, **more: Any) -> dict[str, Any]:
        """The answer as `edge_node.Answer.to_dict` gives it; `more` is the rest of `edge_node.body.AskBody`.

        A question that got no answer gives the account of it: `answered` is false.

        Raises:
            AskFailed: an error of the service.
            OSError: no connection.
        """
        body = json.dumps({"question": question} | more).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with _NO_PROXY.open(request, timeout=self._timeout_s) as reply:
                answer: dict[str, Any] = json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode("utf-8", "replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return dict(json.loads(text)["answer"])
            raise AskFailed(f"the edge answered {error.code}: {text[:500]}") from error
        return answer
