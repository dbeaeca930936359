"""One replica: a Sharer model, its bundles, the codecs and the documents. Knows nothing of Ray or gRPC.

The model has one thread, where prompts take turns (`cloud_node.scheduler`). A thread of each call encodes its segments
while the next layer computes, and puts the frames into a pipe; the event loop reads them. A caller who goes away, or a
deadline, is noticed before the next layer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

from cloud_node.admission import PositionsHeld
from cloud_node.call import Ended, Part, Quoting, RelayCall, ShareCall
from cloud_node.config import CloudConfig, ExportPolicy
from cloud_node.document_reader import Document, DocumentReader, available
from cloud_node.export import check_leaving, least, positions_allowed, tokens_allowed
from cloud_node.exposure import seconds_left
from cloud_node.prefixes import Prefixes, stored_text
from cloud_node.redaction import LookedThrough
from cloud_node.scheduler import CancelToken, Pipe, PrefillScheduler, Steps, Work
from fuser import Caller, Cut, PrefixFiles, PrefixFrom, Sharer, computes
from fuser.kv.prefill import EXACT_FROM, prefill_together
from kvwire.codec import CodecRegistry
from kvwire.errors import Busy, ExposureSpent, IncompatiblePeer, InternalError, KvwireError, TooLarge
from kvwire.identity import ModelRef
from kvwire.limits import Limits
from kvwire.messages import BundleRef, CodecRef, Description, RelayReply
from kvwire.section import Section
from kvwire.segment import SliceHeader
from kvwire.slice_io import SliceWriter, payload_codec

_PIPE_PARTS: Final = 16  # at most 16 MiB of frames wait here for the reader
_PART_CHARS: Final = 8_192
_SEAM_TOKENS: Final = 8


class Replica:
    """Answers calls with slices.

    Args:
        sharers: by bundle hash, all around one model, with one prefix cache.
        ref: which model that is.
        max_prompt_tokens: longer prompts are refused before they are prefilled.
        room: for the prompts under way, others wait for it; longer prompts than that are refused too.
        workers: calls that may be under way at once. Of each one slice at most lies in memory before it is encoded.
        max_batch, max_batch_positions: as `PrefillScheduler` takes them.
        prefix_files: of the sharers' store of prefixes, where they have one.
    """

    def __init__(
        self,
        sharers: Mapping[str, Sharer],
        ref: ModelRef,
        documents: DocumentReader,
        limits: Limits,
        export: ExportPolicy,
        *,
        max_prompt_tokens: int,
        room: PositionsHeld,
        workers: int,
        max_batch: int,
        max_batch_positions: int,
        prefix_files: PrefixFiles | None = None,
    ) -> None:
        self._sharers = dict(sharers)
        self._ref = ref
        self._documents = documents
        self._limits = limits
        self._export = export
        self._looked = LookedThrough()
        self._max_prompt_tokens, self._room = min(max_prompt_tokens, room.most), room
        self._codecs = {name: CodecRegistry(s.bundle.codecs()) for name, s in sharers.items()}
        model = next(iter(sharers.values())).model
        self._schedule = PrefillScheduler(
            partial(prefill_together, model),
            max_batch=max_batch if all(sharer.packs for sharer in sharers.values()) else 1,
            max_batch_positions=max_batch_positions,
            least=EXACT_FROM,
        )
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sharer")
        own = tuple(sharers.values())
        self.prefixes = Prefixes(own, documents, self._schedule, prefix_files, self._max_prompt_tokens)
        """What is kept of documents that were read."""

    @classmethod
    def load(cls, config: CloudConfig) -> Replica:
        """Load the model and every bundle the configuration names.

        Raises:
            BadBundle: a bundle cannot be read, or was trained for another Sharer, or another revision of it.
            NoSuchDevice: `[sharer] device`, or the GPU that `gpus` reserves, is not there.
            UnknownModel, ...: as `fuser.models` raises them.
        """
        import torch

        from fuser import load_sharers

        torch.set_num_threads(max(1, int(config.sharer.cpus)))
        own, files = config.sharer, config.prefix_files
        sharers = load_sharers(
            own.model,
            own.bundles,
            device=own.wanted_device,
            dtype=own.dtype,
            prefix_cache_bytes=own.prefix_cache_bytes,
            prefix_files=files,
        )
        return cls(
            {one.bundle.hash: one for one in sharers},
            sharers[0].bundle.config.sharer,
            DocumentReader(config.documents),
            config.limits,
            config.export,
            max_prompt_tokens=own.max_prompt_tokens or _window(sharers[0].model),
            room=PositionsHeld.of(sharers[0].model, config),
            workers=own.max_ongoing + 1,  # one for the node's own question
            max_batch=own.max_batch,
            max_batch_positions=own.max_batch_positions,
            prefix_files=files,
        )

    def where(self) -> str:
        """Device and dtype that the model computes on and in, and what its memory has room for, for people."""
        where = computes(next(iter(self._sharers.values())).model)
        return f"{where}, with memory for {self._room.most:,} positions of prompts"

    def describe(self) -> Description:
        """What this replica can do; what of it may leave the cloud is the gateway's to say."""
        bundles = tuple(
            BundleRef(
                name,
                sharer.bundle.config.receiver,
                tuple(sorted(sharer.bundle.kinds)),
                tuple(CodecRef(codec.name, codec.parameters_hash) for codec in sharer.bundle.codecs()),
            )
            for name, sharer in self._sharers.items()
        )
        return Description(self._ref, bundles, CodecRegistry().refs(), self._limits)

    async def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[list[Part | KvwireError]]:
        """The parts of one slice, in batches of what lies ready: a header, then frames, then a trailer.

        An error is the last part and is not raised, so that it crosses process boundaries as a value. Closing
        the iterator, or cancelling its task, stops the prefill before its next layer.
        """
        stop = CancelToken(timeout_s)
        pipe: Pipe[Part | KvwireError] = Pipe(_PIPE_PARTS, stop)

        def work() -> None:
            failure: KvwireError | None = None
            try:
                self._share(call, pipe.put, stop)
            except Exception as error:
                failure = _told(error, stop)
            finally:
                pipe.close(failure)

        self._threads.submit(work)
        try:
            async for batch in pipe.batches():
                yield batch
        finally:
            stop.set()

    async def relay(self, call: RelayCall, timeout_s: float) -> RelayReply | KvwireError:
        """The Sharer's own answer as text. Shorter prompts go first between its tokens."""
        stop = CancelToken(timeout_s)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._relay, call, stop)
        except Exception as error:
            return _told(error, stop)
        finally:
            stop.set()

    def look_soon(self) -> None:
        """Have it look for documents that are gone, or new, beside the calls. Does not wait, nor raise."""
        self.prefixes.look_soon()

    def _share(self, call: ShareCall, put: Callable[[Part], None], stop: CancelToken) -> None:
        request = call.request
        sections, documents = self._resolve(call.tenant, request.sections)
        allowed = least(call.allowed, positions_allowed(self._export, request.kind, request.plan, documents))
        sharer = self._sharer(request.bundle_hash)
        self._check_length(sharer.tokenizer, sections, stop)
        most = self._limits.max_positions if allowed is None else allowed
        cut = sharer.layout(sections, request.kind, most, request.plan)
        if call.left is not None and cut.positions > call.left:
            raise ExposureSpent(seconds_left())
        asked = (place for place, section in enumerate(request.sections) if section.document_id is not None)
        named = dict(zip(asked, documents, strict=True))
        versions = tuple({document.id: document.version for document in documents}.values())
        codec = payload_codec(request.plan, self._codecs[request.bundle_hash].get(request.plan.codec))

        def begun(cut: Cut) -> tuple[SliceHeader, SliceWriter]:
            quoted = tuple(_quoted(cut, named))
            header = Quoting(request.digest(), cut.kind, cut.specs, cut.spans, cut.tail, versions, quoted)
            check_leaving(header, request, allowed)
            self._limits.check_slice(header)
            return header, SliceWriter(header, codec, self._limits, request.max_bytes)

        self._check_prompt(len(cut.prompt))
        begun(cut)  # refused before it is read, if by the most that it may have
        writer: SliceWriter | None = None
        encode_s = 0.0
        found: list[PrefixFrom] = []
        # The node's own question has a few positions, and is to be answered while the model answers anybody.
        room = self._room.held(len(cut.prompt), call.tenant, stop.check) if call.tenant else nullcontext(0.0)
        with (
            room as room_s,
            self.prefixes.reading(call.tenant, documents),
            Work(self._schedule, stop) as work,
        ):
            stored = stored_text(call.tenant, request.sections, documents)
            caller = Caller(work.cancelled, call.tenant, stored, found.append)
            steps = sharer.steps(cut, lambda *segment: work.put(segment), caller, work.put)
            ticket = work.enter(steps, len(cut.prompt))
            for part in work.parts():
                if isinstance(part, Cut):
                    settled = part
                    header, writer = begun(settled)
                    put(header)
                    continue
                assert writer is not None
                spec, tensor = part
                began = time.monotonic()
                frames = writer.write(spec, tensor)
                if ticket.ended_s is not None:  # what was encoded before cost no time of its own
                    encode_s += time.monotonic() - max(began, ticket.ended_s)
                for frame in frames:
                    put(frame)
        assert writer is not None
        timings = {"queue": room_s + ticket.waited_s, "prefill": ticket.ran_s, "encode": encode_s}
        trailer = writer.trailer(timings, settled.certainty, len(settled.chosen), settled.chosen_runs)
        put(Ended.of(trailer, found[-1] if found else ""))

    def _relay(self, call: RelayCall, stop: CancelToken) -> RelayReply:
        request = call.request
        sections, documents = self._resolve(call.tenant, request.sections)
        allowed = least(call.allowed, tokens_allowed(self._export, documents))
        most = request.max_new_tokens if allowed is None else min(request.max_new_tokens, allowed)
        sharer = next(iter(self._sharers.values()))
        self._check_length(sharer.tokenizer, sections, stop)
        prompt = sharer.prompt(sections)
        self._check_prompt(len(prompt))
        said: list[tuple[str, int]] = []
        with (
            self._room.held(len(prompt), call.tenant, stop.check) as room_s,
            self.prefixes.reading(call.tenant, documents),
            Work(self._schedule, stop) as work,
        ):
            stored = stored_text(call.tenant, request.sections, documents)
            caller = Caller(work.cancelled, call.tenant, stored)

            def steps() -> Steps:
                said.append((yield from sharer.answering(prompt, most, caller, request.max_bytes)))

            ticket = work.enter(steps(), len(prompt))
            work.finish()
        ((text, tokens),) = said
        timings = {"queue": room_s + ticket.waited_s, "prefill": ticket.ran_s, "encode": 0.0}
        return RelayReply(request.request_id, text, tokens, timings)

    def _resolve(self, tenant: str, sections: Sequence[Section]) -> tuple[list[Section], list[Document]]:
        """Sections with their texts, short enough to be tokenised, and the documents among them."""
        resolved: list[Section] = []
        documents: list[Document] = []
        for section in sections:
            if section.document_id is None:
                resolved.append(section)
                continue
            with available():
                document = self._documents.get(tenant, section.document_id, section.passage)
            self._looked.check(self._export.redact, tenant, document.text)
            resolved.append(Section(section.role, section.visibility, document.text))
            documents.append(document)
        if len({(one.id, one.version) for one in documents}) > len({one.id for one in documents}):
            raise Busy  # two passages of one document, of two texts: one was stored meanwhile
        self._limits.check_prompt(sum(len(section.text or "") for section in resolved))
        return resolved, documents

    def _sharer(self, bundle_hash: str) -> Sharer:
        sharer = self._sharers.get(bundle_hash)
        if sharer is None:
            raise IncompatiblePeer("bundle hash", ", ".join(self._sharers), bundle_hash)
        return sharer

    def _check_length(self, tokenizer: Any, sections: Sequence[Section], stop: CancelToken) -> None:
        """Refuse what is far too long after as many tokens as there is room for, and not after all it has.

        Tokenising a prompt whole can be neither stopped nor cut short: so texts are counted first, a part at a time,
        unless all of them are no more than a part, and of fewer bytes than there may be tokens. A part may have a few
        tokens more for itself than within its text.
        """
        if sum(len((section.text or "").encode()) for section in sections) <= min(
            self._max_prompt_tokens, _PART_CHARS
        ):
            return
        counted = 0
        for section in sections:
            text = section.text or ""
            for start in range(0, len(text), _PART_CHARS):
                stop.check()
                part = tokenizer(text[start : start + _PART_CHARS], add_special_tokens=False)["input_ids"]
                counted += max(0, len(part) - _SEAM_TOKENS)
                self._check_prompt(counted)

    def _check_prompt(self, positions: int) -> None:
        if positions > self._max_prompt_tokens:
            # Not how many there are: an error should not tell a document's length.
            raise TooLarge("prompt tokens", self._max_prompt_tokens + 1, self._max_prompt_tokens)


def _quoted(cut: Cut, named: Mapping[int, Document]) -> Iterator[tuple[str, int, int]]:
    """Of each position chosen the document, of those `named` by sections, and its characters in the whole of it."""
    for start, end in cut.prompt.tokens.offsets[list(cut.chosen)].tolist():
        for section, span in enumerate(cut.prompt.spans):
            if span is not None and section in named and start < span[1] and end > span[0]:
                moved = named[section].begins - span[0]
                yield named[section].id, max(start, span[0]) + moved, min(end, span[1]) + moved
                break


def _told(error: Exception, stop: CancelToken) -> KvwireError:
    """What the gateway may know of an error. Foreign messages may quote a text: only their type is kept."""
    try:
        stop.check()
    except KvwireError as ended:
        return ended  # whatever it looked like, the call was over
    if isinstance(error, KvwireError):
        return error
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
    return InternalError(f"{type(error).__name__} at {line}")


def _window(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", 0) or 32_768)
