"""A real gRPC server with mutual TLS that cuts real slices with the tiny Sharer, without Ray.

`tamper` changes what is sent: it gets the parts of a slice and gives what goes out, or raises a KvwireError.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server

from cloud_node.passages import passages
from fuser.bundle.bundle import Bundle
from fuser.models.load import load_model
from fuser.sharer import Cut, Sharer
from kvwire.codec import CodecRegistry
from kvwire.errors import KvwireError, NotFound
from kvwire.identity import TlsFiles, server_credentials
from kvwire.limits import METADATA_OPTIONS, Limits
from kvwire.messages import (
    BundleRef,
    Description,
    Found,
    RelayReply,
    RelayRequest,
    SearchRequest,
    ShareRequest,
    check_request,
)
from kvwire.plan import Granted
from kvwire.section import Section, documents_of
from kvwire.segment import SegmentSpec, SliceHeader, SliceTrailer
from kvwire.serde import (
    description_to_proto,
    found_to_proto,
    relay_reply_to_proto,
    relay_request_from_proto,
    search_request_from_proto,
    share_request_from_proto,
    share_response_to_proto,
)
from kvwire.slice_io import Frame, SliceWriter, payload_codec
from kvwire.status import to_grpc
from kvwire.v1.sharer_pb2_grpc import SharerServiceServicer, add_SharerServiceServicer_to_server

Part = SliceHeader | Frame | SliceTrailer
Tamper = Callable[[Iterable[Part]], Iterable[Part | float]]
"""A number among the parts makes the server wait so many seconds."""

DOCUMENTS = {
    "note-1": "Ilse Brandvik keeps the spare key under the third stone from the boat house door.",
    "note-2": "The harbour master of Velmora wrote the tide into the ledger before the bell rang twice.",
    "empty": "",
    "two": "The bell rang twice.\n\n" + "The ledger is in the harbour. " * 40,
}


def versions_of(request: ShareRequest | RelayRequest) -> tuple[str, ...]:
    """One of 32 digits for each document: 00...0, 00...1 and so on."""
    return tuple(f"{place:032x}" for place, _ in enumerate(documents_of(request.sections)))


class SliceService(SharerServiceServicer):  # type: ignore[misc]
    """Describe, Search, Share and Relay. `requests`, `remaining_s`, `searches` and `relays` keep what came in,
    `users` for whom; `finds` is what any search finds; `relay_id` answers another request, `relay_most` keeps to
    another cap, `relay_text` is said in place of what the Sharer would."""

    def __init__(self, sharer: Path, bundle: Path, documents: Mapping[str, str]) -> None:
        self.bundle = Bundle.load(bundle)
        self.sharer = Sharer(*load_model(sharer), self.bundle)
        self.documents = documents
        self.limits = Limits()
        self.codecs = CodecRegistry()
        self.tamper: Tamper = lambda parts: parts
        self.serve: Callable[[ShareRequest], ShareRequest] = lambda request: request
        self.requests: list[ShareRequest] = []
        self.relays: list[RelayRequest] = []
        self.searches: list[SearchRequest] = []
        self.users: list[list[str]] = []
        self.finds: tuple[Found, ...] = ()
        self.remaining_s: list[float | None] = []
        self.positions_left: int | None = None
        self.relay_id: bytes | None = None
        self.relay_most = 0
        self.relay_text: str | None = None
        self.failures: list[KvwireError] = []
        self.cancelled = threading.Event()
        config = self.bundle.config
        offer = BundleRef(self.bundle.hash, config.receiver, tuple(sorted(self.bundle.kinds)))
        granted = Granted(max_positions=32, max_quoted=32, max_runs=4, shared_over_documents=32)
        self.description = Description(config.sharer, (offer,), self.codecs.refs(), granted=granted)

    async def Describe(self, request: Any, context: Any) -> Any:
        return description_to_proto(self.description)

    async def Search(self, request: Any, context: Any) -> Any:
        try:
            self.users.append(
                [value for key, value in context.invocation_metadata() if key == "authorization"]
            )
            if self.failures:
                raise self.failures.pop(0)
            self.searches.append(search_request_from_proto(request, self.limits))
            return found_to_proto(self.finds)
        except KvwireError as error:
            await context.abort_with_status(to_grpc(error))

    async def Relay(self, request: Any, context: Any) -> Any:
        try:
            self.users.append(
                [value for key, value in context.invocation_metadata() if key == "authorization"]
            )
            if self.failures:
                raise self.failures.pop(0)
            wanted = relay_request_from_proto(request, self.limits)
            self.relays.append(wanted)
            text = self.relay_text
            if text is None:
                text = self.sharer.answer(self._resolved(wanted), wanted.max_new_tokens)
            text = text.encode()[: self.relay_most or wanted.max_bytes or None].decode(errors="ignore")
            timings = {"queue": 0.0, "prefill": 0.25, "encode": 0.0}
            reply = RelayReply(self.relay_id or wanted.request_id, text, 3, timings, versions_of(wanted))
            return relay_reply_to_proto(reply)
        except KvwireError as error:
            await context.abort_with_status(to_grpc(error))

    async def Share(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            self.users.append(
                [value for key, value in context.invocation_metadata() if key == "authorization"]
            )
            if self.failures:
                raise self.failures.pop(0)
            wanted = share_request_from_proto(request, self.limits)
            self.requests.append(wanted)
            self.remaining_s.append(context.time_remaining())
            check_request(wanted, self.description)
            for part in self.tamper(await asyncio.to_thread(self.slice_of, wanted)):
                if isinstance(part, float):
                    await asyncio.sleep(part)
                else:
                    yield share_response_to_proto(part)
        except KvwireError as error:
            await context.abort_with_status(to_grpc(error))
        except (
            asyncio.CancelledError,
            GeneratorExit,
        ):  # the latter where it is cancelled while a part is written
            self.cancelled.set()
            raise

    def slice_of(self, request: ShareRequest) -> list[Part]:
        """Header, frames and summary, as if what `serve` makes of the request had been asked for."""
        digest, request = request.digest(), self.serve(request)
        cut = self.sharer.layout(self._resolved(request), request.kind, 32, request.plan)
        codec = payload_codec(request.plan, self.codecs.get(request.plan.codec))
        announced: list[Cut] = []
        segments: list[tuple[SegmentSpec, Any]] = []
        self.sharer.run(cut, lambda spec, tensor: segments.append((spec, tensor)), announce=announced.append)
        (cut,) = announced
        header = SliceHeader(digest, cut.kind, cut.specs, cut.spans, cut.tail, versions_of(request))
        limits = Limits(max_frame_bytes=512)  # many frames a segment
        writer = SliceWriter(header, codec, limits, request.max_bytes)
        parts: list[Part] = [header]
        for spec, tensor in segments:
            parts.extend(writer.write(spec, tensor))
        timings = {"queue": 0.0, "prefill": 0.25, "encode": 0.125}
        trailer = writer.trailer(timings, cut.certainty, len(cut.chosen), cut.chosen_runs)
        return [*parts, replace(trailer, positions_left=self.positions_left)]

    def _resolved(self, request: ShareRequest | RelayRequest) -> list[Section]:
        sections = []
        for section in request.sections:
            if section.document_id is not None:
                if section.document_id not in self.documents:
                    raise NotFound
                text = self.documents[section.document_id]
                if section.passage:
                    begins, ends = list(passages(text))[section.passage - 1]
                    text = text[begins:ends]
                section = Section(section.role, section.visibility, text=text)
            sections.append(section)
        return sections


class Health(HealthServicer):  # type: ignore[misc]
    """Says whether the server takes calls: `taking`."""

    def __init__(self) -> None:
        self.taking = True

    async def Check(self, request: Any, context: Any) -> Any:
        codes = health_pb2.HealthCheckResponse
        return codes(status=codes.SERVING if self.taking else codes.NOT_SERVING)


class RunningServer:
    """A server on a thread of its own."""

    def __init__(self, service: SliceService, files: TlsFiles) -> None:
        self.service = service
        self.loop = asyncio.new_event_loop()
        self.files = files
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._server: Any = None
        self.health = Health()
        self.port = self.start(0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, port: int) -> int:
        """Listen; `stop` and `start` again make an outage."""

        async def begin() -> int:
            self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *METADATA_OPTIONS])
            add_SharerServiceServicer_to_server(self.service, self._server)
            add_HealthServicer_to_server(self.health, self._server)
            self._credentials = server_credentials(self.files)  # kept while it runs; good for one server
            bound: int = self._server.add_secure_port(f"127.0.0.1:{port}", self._credentials)
            await self._server.start()
            return bound

        return self.run(begin())

    def stop(self) -> None:
        """Cut every call off and stop listening."""
        self.run(self._server.stop(0))

    def close(self) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


@contextmanager
def serving(service: SliceService, files: TlsFiles) -> Iterator[RunningServer]:
    """A server that shows the certificate in `files`."""
    server = RunningServer(service, files)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def reading(stream: Iterator[object]) -> Iterator[list[BaseException]]:
    """A thread that reads the next of `stream`, until it has ended; what it raised stands in the list then."""
    raised: list[BaseException] = []

    def read() -> None:
        try:
            next(stream)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    yield raised
    thread.join(20)


def wait_until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
