"""An edge that writes down what it asks and what it takes in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from kvwire.errors import KvwireError, entry_of
from ops.chaos.history import HistoryLine, digest_of, said
from ops.chaos.trials import TENANTS, Trial

if TYPE_CHECKING:
    from edge_node import Assistant
    from ops.chaos.world import TinyWorld


class CheckedEdge:
    """An edge that writes down what it asks and takes in. Used by one thread at a time; a context manager."""

    def __init__(self, world: TinyWorld, address: str, deadline_s: float, tenant: str = TENANTS[0]) -> None:
        from edge_node import Assistant, Client

        self._world = world
        config = world.edge(address, deadline_s, tenant)
        self._took: list[str] = []
        self._client = _recording(Client(config), self._took)
        self.assistant: Assistant = Assistant(config, world.truth.receiver, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.assistant.close()

    def ask(self, prompt: Trial, deadline_s: float, index: int, fault: str) -> HistoryLine:
        """Ask, and write down what came of it."""
        from edge_node import Ask

        self._took.clear()
        ask = Ask(
            prompt.question,
            document=prompt.document,
            kind=prompt.kind,
            plan=prompt.plan,
            guess=True,
            deadline_s=deadline_s,
        )
        began, request_id = time.monotonic(), ""
        told: dict[str, Any] = {"source": None, "reason": None, "text": None, "error": None}
        try:
            stream = self.assistant.stream(ask)
            try:
                for _ in stream:
                    pass
                told = said(stream.answer)
            finally:
                request_id = stream.request_id
        except KvwireError as error:
            told["error"] = entry_of(type(error)).reason
        except Exception as error:
            told["error"] = f"{type(error).__name__}: {error}"[:200]
        return HistoryLine(
            index=index,
            fault=fault,
            request_id=request_id,
            prompt=prompt.name,
            versions=("",) if prompt.document is None else self._world.live(prompt.document, began),
            segments=tuple(self._took),
            seconds=time.monotonic() - began,
            deadline_s=deadline_s,
            **told,
        )


class _Recorded:
    """A slice on its way in, of which all that is taken in is kept as digests."""

    def __init__(self, shared: Any, took: list[str]) -> None:
        self._shared, self._took = shared, took
        self.stream, self.close = shared.stream, shared.close

    def __iter__(self) -> Iterator[Any]:
        for part in self._shared:
            if (digest := digest_of(part)) is not None:
                self._took.append(digest)
            yield part


def _recording(client: Any, took: list[str]) -> Any:
    share: Callable[..., Any] = client.share

    def recorded(*what: Any, **how: Any) -> _Recorded:
        took.clear()
        return _Recorded(share(*what, **how), took)

    client.share = recorded
    return client
