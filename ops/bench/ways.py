"""The ways to an answer that are compared: the Receiver alone, the Sharer's text, a slice of each plan."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.demo.samples import DemoQuestion, DemoSample
from ops.demo.score import is_right

if TYPE_CHECKING:
    from edge_node import Client
    from fuser.bundle.bundle import Bundle
    from ops.demo.edge_api import EdgeApi
    from ops.link.background import BackgroundLink

ALONE: Final = "receiver-only"
RELAY: Final = "text relay"
READ: Final = "text relay, read"
TEXTS: Final = (RELAY, READ)
_USUAL: Final = ("raw", "lossless", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Way:
    """One way; `plan` is of a slice of `kind`, None where there is no slice.

    ALONE: the Receiver has nothing. RELAY: the Sharer's own answer as text. READ: the Receiver answers, given it.
    """

    name: str
    plan: Plan | None = None
    kind: SliceKind | None = None


def ways_of(directory: Path, bundle: Bundle) -> tuple[Way, ...]:
    """The ways that a bundle has: without a slice, excerpts in the usual codecs, a draft, then every plan of its table.

    Raises:
        BadTable: the bundle's table cannot be read.
        ValueError: the bundle makes no slices of documents.
    """
    from fuser.bundle.plans import PlanTable

    kind = SliceKind.EXCERPT
    if kind not in bundle.kinds:
        raise ValueError("this bundle makes no slices of documents: it has no translate head")
    ways = [Way(ALONE), Way(RELAY), Way(READ), *(Way(codec, Plan(codec=codec), kind) for codec in _USUAL)]
    if SliceKind.DRAFT in bundle.kinds:
        own = (codec.name for codec in bundle.codecs() if codec.name == "transform-2")
        ways.append(Way("draft", Plan(codec=next(own, "int8")), SliceKind.DRAFT))
    if PlanTable.lies_in(directory):
        rows = [row for row in PlanTable.load(directory, bundle.hash).rows if row.kind is kind]
        ways += [Way(f"{kind}: {row.plan}", row.plan, kind) for row in rows]
    return tuple(ways)


def chosen(ways: Sequence[Way], names: Sequence[str] | None) -> tuple[Way, ...]:
    """Those of the given names, or all.

    Raises:
        ValueError: a name is not among them.
    """
    known = {way.name: way for way in ways}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"no way is called {unknown[0]!r}; there are: {'; '.join(known)}")
    return tuple(ways if names is None else (known[name] for name in dict.fromkeys(names)))


class Asker:
    """Asks an edge's API, and the cloud for text, both through one link; says what an answer cost.

    Args:
        client: for the text; with the edge's own certificate.
    """

    def __init__(
        self, api: EdgeApi, client: Client, bundle: Bundle, link: BackgroundLink, max_new_tokens: int
    ) -> None:
        self._api, self._client, self._bundle, self._link = api, client, bundle, link
        self._max_new_tokens = max_new_tokens

    def ask(self, way: Way, sample: DemoSample, question: DemoQuestion) -> dict[str, Any]:
        """One answer: seconds to the first piece of text and to the last, bytes through the link, whether it is right.

        Raises:
            AskFailed, KvwireError: the edge or the cloud refused.
        """
        down, up = self._link.carried
        if way.name in TEXTS:
            record = self._by_text(way.name == READ, sample, question)
        else:
            record = self._by_edge(way, sample, question)
        text = record.pop("text")
        after_down, after_up = self._link.carried
        return record | {
            "bytes_down": after_down - down,
            "bytes_up": after_up - up,
            "right": is_right(text, question.answers),
        }

    def _by_edge(self, way: Way, sample: DemoSample, question: DemoQuestion) -> dict[str, Any]:
        from fuser.config import to_dict

        more: dict[str, Any] = {"source": "receiver-only"}
        if way.plan is not None:
            more = {"document": sample.id, "kind": way.kind, "plan": to_dict(way.plan)}
        # An answer that may be withheld is shown once it is whole: its first piece would come with its last.
        more["least_confidence"] = 0.0
        answer = self._api.ask(question.text, max_new_tokens=self._max_new_tokens, **more)
        return {
            "first_s": answer["time_to_first_token_s"],
            "total_s": answer["timings"]["total"],
            "text": answer["text"],
            "tokens": answer["tokens"],
            "payload_bytes": answer["payload_bytes"],
            "as_wanted": answer["source"] == ("fused" if way.plan is not None else "receiver-only"),
        }

    def _by_text(self, read: bool, sample: DemoSample, question: DemoQuestion) -> dict[str, Any]:
        began = time.monotonic()
        reply = self._client.relay(
            (
                Section(Role.DOCUMENT, Visibility.CLOUD, document_id=sample.id),
                Section(Role.QUESTION, Visibility.SHARED, text=question.text),
            ),
            self._bundle,
            max_new_tokens=self._max_new_tokens,
        )
        took = time.monotonic() - began
        record = {
            "first_s": took,  # the text comes whole
            "total_s": took,
            "text": reply.text,
            "tokens": reply.tokens,
            "payload_bytes": len(reply.text.encode()),
            "as_wanted": True,
        }
        if not read:
            return record
        answer = self._api.ask(
            question.text, max_new_tokens=self._max_new_tokens, source="receiver-only", text=reply.text
        )
        return record | {
            "first_s": took + answer["time_to_first_token_s"],
            "total_s": took + answer["timings"]["total"],
            "text": answer["text"],
            "tokens": answer["tokens"],
        }
