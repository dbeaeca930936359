"""A cloud and an edge of tiny random models in this process: a real replica and gateway, mutual TLS, and no Ray."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from kvwire.errors import KvwireError, entry_of
from kvwire.messages import ShareRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import Segment, SliceHeader, SliceKind
from ops.chaos.history import Expected, HistoryLine, digest_of, hash_of, said

if TYPE_CHECKING:
    from cloud_node.call import Part, RelayCall, ShareCall
    from cloud_node.config import CloudConfig
    from cloud_node.replica import Replica
    from edge_node import Assistant, EdgeConfig
    from fuser.bundle.bundle import Bundle
    from kvwire.messages import RelayReply

T = TypeVar("T")
TENANTS: Final = ("acme", "other")
_STOP_S: Final = 30.0
DOCUMENTS: Final = {
    "keys": (
        "Ilse Brandvik keeps the spare key under the third stone from the boat house door.",
        "Ilse Brandvik keeps the spare key in the cedar box behind the ledger.",
    ),
    "tide": (
        "The harbour master of Velmora wrote the tide into the ledger before the bell rang twice.",
        "The harbour master of Velmora wrote 6789 degrees into the ledger on Thursday.",
    ),
    "mine": (
        "Every sample from the northern mine is weighed, numbered and stored in a cedar box. " * 12,
        "Every sample from the northern mine is weighed twice, and the second weight is kept. " * 12,
    ),
}
"""By id: the text of each version."""
QUESTIONS: Final = (
    "Who keeps the spare key?",
    "Where is the ledger?",
    "When was the bridge closed?",
    "What colour is the door?",
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is asked, and how."""

    question: str
    document: str | None
    kind: SliceKind
    plan: Plan

    @property
    def name(self) -> str:
        """A hash of all of it."""
        return hash_of(repr((self.question, self.document, self.kind, dataclasses.astuple(self.plan))))

    def sections(self) -> tuple[Section, ...]:
        """As they are asked for."""
        asked = Section(Role.QUESTION, Visibility.SHARED, text=self.question)
        if self.document is None:
            return (asked,)
        return (Section(Role.DOCUMENT, Visibility.CLOUD, document_id=self.document), asked)


_SHARED: Final = (SliceKind.SHARED, Plan(codec="lossless"))
_OVER: Final = (
    (SliceKind.EXCERPT, Plan(codec="raw", positions=8)),
    (SliceKind.DRAFT, Plan(codec="lossless", positions=5)),
)
PROMPTS: Final = tuple(
    Trial(question, document, *how)
    for document in (*DOCUMENTS, None)
    for how in (_OVER if document is not None else (_SHARED,))
    for question in QUESTIONS
)
"""Their answers differ; of a document, those of its versions too."""


class LocalReplicas:
    """One replica of this process, with the interface of `RayReplicas`."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.timeouts_s: list[float] = []

    async def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[Part]:
        """As `RayReplicas.share`."""
        self.timeouts_s.append(timeout_s)
        async with contextlib.aclosing(self.replica.share(call, timeout_s)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                for part in batch:
                    if isinstance(part, KvwireError):
                        raise part
                    yield part

    async def relay(self, call: RelayCall, timeout_s: float) -> RelayReply:
        """As `RayReplicas.relay`."""
        reply = await self.replica.relay(call, timeout_s)
        if isinstance(reply, KvwireError):
            raise reply
        return reply


@dataclass(frozen=True, slots=True)
class TinyPair:
    """The tiny models, a bundle of theirs and another one, in a folder; and certificates for both ends."""

    folder: Path

    @property
    def sharer(self) -> Path:
        """Directory of the Sharer."""
        return self.folder / "sharer"

    @property
    def receiver(self) -> Path:
        """Directory of the Receiver."""
        return self.folder / "receiver"

    @property
    def bundle(self) -> Path:
        """Directory of the bundle."""
        return self.folder / "bundle"

    @property
    def foreign(self) -> Path:
        """Directory of another bundle for the same pair."""
        return self.folder / "foreign"

    @classmethod
    def make(cls, folder: Path) -> TinyPair:
        """Make the models and the bundles."""
        from ops.chaos.tiny import save_tiny_receiver, save_tiny_sharer
        from ops.chaos.tiny_bundle import save_tiny_bundle

        made = cls(folder)
        save_tiny_sharer(made.sharer)
        save_tiny_receiver(made.receiver)
        save_tiny_bundle(made.bundle, made.sharer, made.receiver)
        save_tiny_bundle(made.foreign, made.sharer, made.receiver, seed=23)
        return made


class Truth:
    """What each prompt gives without a wire, made when it is asked for first."""

    def __init__(self, cast: TinyPair) -> None:
        from fuser.models.load import load_model
        from fuser.receiver import Receiver
        from fuser.sharer import Sharer

        self.bundle = _bundle(cast.bundle)
        self._sharer = Sharer(*load_model(cast.sharer), self.bundle)
        self.receiver = Receiver(*load_model(cast.receiver), _bundle(cast.bundle))
        self._prompts = {prompt.name: prompt for prompt in PROMPTS}
        self._known: dict[tuple[str, str], Expected] = {}
        self._lock = threading.Lock()

    def expected(self, prompt: str, version: str) -> Expected:
        """For the hash of a prompt, and the text of its document as `version`."""
        with self._lock:
            if (found := self._known.get((prompt, version))) is None:
                found = self._known[prompt, version] = self._made(self._prompts[prompt], version)
            return found

    def _made(self, prompt: Trial, version: str) -> Expected:
        from ops.chaos.in_one_process import answer_in_one_process, first_line

        documents = {} if prompt.document is None else {prompt.document: version}
        local = answer_in_one_process(
            self._sharer, self.receiver, prompt.sections(), documents, prompt.kind, 32, TOKENS, prompt.plan
        )
        header = SliceHeader(bytes(16), local.cut.kind, local.cut.specs, local.cut.spans, local.cut.tail)
        parts: list[SliceHeader | Segment] = [header, *local.segments]
        digests = [digest_of(part) for part in parts]
        return Expected(tuple(str(digest) for digest in digests), first_line(local.text))


TOKENS: Final = 6
"""Of an answer."""


class TinyWorld:
    """All of it, until it is left: a context manager.

    Args:
        folder: for models, certificates, documents and the audit log.
        documents: URL of an empty database for the documents; None makes a file of SQLite.
    """

    def __init__(self, folder: Path, cast: TinyPair | None = None, documents: str | None = None) -> None:
        from ops.certs import make_certificates

        self.cast = cast or TinyPair.make(folder / "models")
        self.truth = Truth(self.cast)
        self.certificates = make_certificates(folder / "tls", list(TENANTS))
        self.folder = folder
        self.config = self._config(documents or f"sqlite:///{folder / 'documents.db'}")
        self.versions = {name: texts[0] for name, texts in DOCUMENTS.items()}
        """Of each document, now."""
        self._put: dict[str, list[tuple[float, float, str]]] = {}
        for tenant in TENANTS:
            for name in DOCUMENTS:
                self.put(name, 0, tenant)
        self._cuts = 0
        self._cutting: dict[bool, tuple[Bundle, Replica]] = {}

    def __enter__(self) -> Self:
        """Start the cloud."""
        from cloud_node.replica import Replica

        self.replica = Replica.load(self.config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-cloud", daemon=True)
        self._thread.start()
        self.address = self.on_the_loop(self._start())
        return self

    def __exit__(self, *error: object) -> None:
        self.on_the_loop(self._gateway.drain())
        self._audit.close()
        self._store.close()
        self.replica._documents.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()

    def put(self, document: str, version: int, tenant: str = TENANTS[0]) -> None:
        """Give a document another text."""
        from cloud_node.documents import Documents

        store, text, began = Documents(self.config.documents), DOCUMENTS[document][version], time.monotonic()
        if tenant == TENANTS[0]:
            self._put.setdefault(document, []).append((began, math.inf, text))
        try:
            store.add(tenant, document, text, replace=True)
        finally:
            store.close()
        if tenant == TENANTS[0]:
            self._put[document][-1] = (began, time.monotonic(), text)
            self.versions[document] = text

    def live(self, document: str, since: float) -> tuple[str, ...]:
        """The texts that a document had at any moment since then, on the monotonic clock."""
        put = self._put[document]
        at = max(place for place, (_, ended, _) in enumerate(put) if ended <= since)
        return tuple(dict.fromkeys(text for _, _, text in put[at:]))

    def edge(self, address: str, deadline_s: float, tenant: str = TENANTS[0]) -> EdgeConfig:
        """The configuration of an edge that finds the cloud at `address`."""
        from edge_node.config import CloudPeer, EdgeConfig, ReceiverConfig, ShareConfig, TlsConfig

        pair = self.certificates.edges[tenant]
        return EdgeConfig(
            tls=TlsConfig(str(pair.certificate), str(pair.key), str(self.certificates.ca.certificate)),
            receiver=ReceiverConfig(str(self.cast.receiver), str(self.cast.bundle), max_new_tokens=TOKENS),
            cloud=CloudPeer(address=address),
            share=ShareConfig(codec="raw", max_positions=8, deadline_s=deadline_s),
        )

    async def cut(
        self, kind: SliceKind, plan: Plan, question: int, foreign: bool
    ) -> tuple[ShareRequest, Bundle, list[Part]]:
        """A request, of an id that is the same in each run, its bundle, and the replica's reply in small frames."""
        from cloud_node.call import ShareCall
        from cloud_node.config import ExportPolicy
        from cloud_node.documents import Documents
        from cloud_node.replica import Replica
        from fuser import load_sharers
        from kvwire.codec import CodecRegistry
        from kvwire.limits import Limits

        if foreign not in self._cutting:
            bundles = [str(self.cast.foreign if foreign else self.cast.bundle)]
            (sharer,) = load_sharers(str(self.cast.sharer), bundles)
            self._cutting[foreign] = (
                sharer.bundle,
                Replica(
                    {sharer.bundle.hash: sharer},
                    sharer.bundle.config.sharer,
                    Documents(self.config.documents),
                    Limits(max_frame_bytes=256),
                    ExportPolicy(),
                    max_prompt_tokens=4_096,
                    workers=1,
                    max_batch=1,
                    max_batch_positions=256,
                ),
            )
        bundle, replica = self._cutting[foreign]
        document = None if kind is SliceKind.SHARED else "keys"
        self._cuts += 1
        request = ShareRequest(
            request_id=hashlib.sha256(f"request {self._cuts}".encode()).digest()[:16],
            sharer=bundle.config.sharer,
            bundle_hash=bundle.hash,
            codec_hash=CodecRegistry(bundle.codecs()).get(plan.codec).parameters_hash,
            kind=kind,
            plan=plan,
            sections=Trial(QUESTIONS[question], document, kind, plan).sections(),
        )
        call = ShareCall(TENANTS[0], request, None, None)
        parts = [part async for part in LocalReplicas(replica).share(call, 60.0)]
        return request, bundle, parts

    def on_the_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of it on the cloud's own thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_STOP_S)

    async def _start(self) -> str:
        from cloud_node.access import Access
        from cloud_node.audit import AuditLog
        from cloud_node.documents import Documents
        from cloud_node.gateway import Gateway
        from cloud_node.service import SharerService, offered

        self._audit, self._store = AuditLog(self.config.audit), Documents(self.config.documents)
        description = offered(self.replica.describe(), self.config)
        service = SharerService(
            self.config, description, LocalReplicas(self.replica), Access(self._store), self._audit
        )
        self._gateway = Gateway(self.config, service, _always)
        return await self._gateway.start()

    def _config(self, documents: str) -> CloudConfig:
        from cloud_node.config import CloudConfig, CloudTls, GatewayConfig, SharerConfig

        cloud = self.certificates.cloud
        return CloudConfig(
            tls=CloudTls(str(cloud.certificate), str(cloud.key), str(self.certificates.ca.certificate)),
            sharer=SharerConfig(
                str(self.cast.sharer), (str(self.cast.bundle),), dtype="float32", retry_after_s=0.2
            ),
            listen="127.0.0.1:0",
            documents=documents,
            audit=str(self.folder / "audit.jsonl"),
            gateway=GatewayConfig(drain_s=2.0),
        )


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


async def _always() -> int:
    return 1


def _bundle(directory: Path) -> Bundle:
    from fuser.bundle.bundle import Bundle

    return Bundle.load(directory)
