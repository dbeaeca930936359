"""The training cache: what the Sharer read, kept once, resumed after any stop, shared between runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.progress import Progress

from fuser.atomic import directory_lock
from fuser.bundle.bundle import Bundle
from fuser.heads.selection import SelectionConfig, choose
from fuser.lab.data.document import Item, Question
from fuser.lab.train.cache import FEATURES, INDEX, STATISTICS, CacheIncomplete, FeatureCache, cache_folder
from fuser.lab.train.cache_writer import CacheWriter
from fuser.lab.train.cached import Cached
from fuser.lab.train.sharer_reading import SharerReading, document_sections
from fuser.lab.train.sources import AnyItem, TrainPrompt
from fuser.models.load import load_model
from fuser.prompts.prompt import PromptStyle
from fuser.sharer import Sharer
from kvwire.identity import ModelRef
from kvwire.plan import Plan
from kvwire.segment import SliceKind
from ops.chaos.tiny_bundle import SHARER_PROMPT

STYLE = PromptStyle.from_dict(SHARER_PROMPT)
SELECTION = SelectionConfig(positions=4)


def _document(number: int, questions: int = 2) -> Item:
    text = f"Box {number} stands in the mill. It holds {number * 7} cedar rods and one brass lamp."
    asked = [Question(f"What stands in place {i} of box {number}?", (f"rod {i}",)) for i in range(questions)]
    return Item("boxes", text, tuple(asked))


ITEMS: list[AnyItem] = [
    _document(1),
    _document(2),
    TrainPrompt("quiz", "Who keeps the key?", "Ilse."),
    _document(3),
]


@pytest.fixture(scope="module")
def sharer(tiny_sharer: Path) -> Any:
    return load_model(tiny_sharer)


def _writer(directory: Path, sharer: Any) -> CacheWriter:
    return CacheWriter(directory, SharerReading(*sharer, STYLE, SELECTION))


def _fill(directory: Path, sharer: Any, items: list[AnyItem]) -> int:
    return _writer(directory, sharer).fill(items, Progress(disable=True))[0]


def test_features_are_kept_as_the_sharer_gave_them(sharer: Any, tmp_path: Path) -> None:
    assert _fill(tmp_path, sharer, ITEMS) == 4
    cache = FeatureCache(tmp_path, ITEMS)
    reading = SharerReading(*sharer, STYLE, SELECTION)
    for item, cached in ((ITEMS[3], cache.documents[2]), (ITEMS[2], cache.prompts[0])):
        features, _ = reading.read_item(item)
        raw = cache.raw(cached, torch.arange(cached.count))
        assert torch.allclose(raw, features[: cached.count], atol=2e-2)
        assert cache.gather(cached, torch.arange(cached.count)).std() > 0.1


def test_a_question_read_on_a_known_prefix_is_read_as_if_alone(sharer: Any) -> None:
    reading = SharerReading(*sharer, STYLE, SELECTION)
    both, alone = _document(5), _document(5)
    alone = Item(alone.source, alone.document, alone.questions[1:])
    _, together = reading.read_item(both)
    _, single = reading.read_item(alone)
    assert torch.allclose(together.questions[1].scores, single.questions[0].scores, atol=1e-5)  # type: ignore[union-attr]


def test_a_second_run_reuses_what_the_first_one_cached(sharer: Any, tmp_path: Path) -> None:
    assert _fill(tmp_path, sharer, ITEMS[:3]) == 3
    assert _fill(tmp_path, sharer, ITEMS[1:]) == 1
    cache = FeatureCache(tmp_path, ITEMS[1:])
    assert [d.text for d in cache.documents] == [ITEMS[1].document, ITEMS[3].document]  # type: ignore[union-attr]
    assert len(FeatureCache(tmp_path, ITEMS).documents) == 3


def test_a_full_disk_is_told_before_it_is_full(
    sharer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    _fill(tmp_path / "whole", sharer, ITEMS)
    size = (tmp_path / "whole" / FEATURES).stat().st_size
    free = shutil.disk_usage(tmp_path)._replace(free=size - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(OSError, match="name another place"):
        _fill(tmp_path, sharer, ITEMS)
    assert (tmp_path / FEATURES).stat().st_size == 0
    free = free._replace(free=size)
    assert _fill(tmp_path, sharer, ITEMS) == 4


@pytest.mark.parametrize("torn", ["index", "features", "both"])
def test_what_a_kill_left_half_written_is_cut_off(sharer: Any, tmp_path: Path, torn: str) -> None:
    whole = tmp_path / "whole"
    _fill(whole, sharer, ITEMS)
    broken = tmp_path / "broken"
    _fill(broken, sharer, ITEMS)
    if torn in ("index", "both"):
        index = (broken / INDEX).read_bytes()
        (broken / INDEX).write_bytes(index[:-7])  # a line without its end
    if torn in ("features", "both"):
        features = (broken / FEATURES).read_bytes()
        (broken / FEATURES).write_bytes(features[:-5])  # the last item's rows are not all there
    assert _fill(broken, sharer, ITEMS) == 1
    assert (broken / FEATURES).read_bytes() == (whole / FEATURES).read_bytes()
    assert (broken / INDEX).read_bytes() == (whole / INDEX).read_bytes()


def test_damage_further_up_costs_what_comes_after_it_and_no_more(sharer: Any, tmp_path: Path) -> None:
    _fill(tmp_path, sharer, ITEMS)
    whole = (tmp_path / FEATURES).read_bytes(), (tmp_path / INDEX).read_bytes()
    lines = whole[1].splitlines(keepends=True)
    (tmp_path / INDEX).write_bytes(b"".join((lines[0], b'{"key": 3}\n', *lines[2:])))
    with pytest.raises(CacheIncomplete, match="3 of 4 items"):
        FeatureCache(tmp_path, ITEMS)
    assert _fill(tmp_path, sharer, ITEMS) == 3
    assert ((tmp_path / FEATURES).read_bytes(), (tmp_path / INDEX).read_bytes()) == whole
    (tmp_path / FEATURES).write_bytes(whole[0][:-5])
    with pytest.raises(CacheIncomplete, match="1 of 4 items"):
        FeatureCache(tmp_path, ITEMS)


def test_a_line_that_was_taken_out_leaves_the_others_in_their_place(sharer: Any, tmp_path: Path) -> None:
    _fill(tmp_path, sharer, ITEMS)
    lines = (tmp_path / INDEX).read_bytes().splitlines(keepends=True)
    before = FeatureCache(tmp_path, ITEMS[3:])
    last = before.raw(before.documents[0], torch.arange(before.documents[0].count))
    (tmp_path / INDEX).write_bytes(b"".join((lines[0], *lines[2:])))
    assert _fill(tmp_path, sharer, ITEMS) == 1
    after = FeatureCache(tmp_path, ITEMS[3:])
    assert torch.equal(after.raw(after.documents[0], torch.arange(after.documents[0].count)), last)


def test_damaged_statistics_are_named(sharer: Any, tmp_path: Path) -> None:
    _fill(tmp_path, sharer, ITEMS)
    (tmp_path / STATISTICS).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"statistics\.safetensors is damaged"):
        FeatureCache(tmp_path, ITEMS)
    with pytest.raises(ValueError, match=r"statistics\.safetensors is damaged"):
        _fill(tmp_path, sharer, [_document(4)])


def test_who_needs_nothing_does_not_wait_for_who_fills(sharer: Any, tmp_path: Path) -> None:
    _fill(tmp_path, sharer, ITEMS[:2])
    with directory_lock(tmp_path, "filling"):
        assert _fill(tmp_path, sharer, ITEMS[:2]) == 0
        with pytest.raises(RuntimeError, match="another process is filling the cache"):
            _fill(tmp_path, sharer, ITEMS)


def test_no_time_caches_nothing_and_the_next_start_goes_on(sharer: Any, tmp_path: Path) -> None:
    assert _writer(tmp_path, sharer).fill(ITEMS, Progress(disable=True), max_minutes=0.0) == (0, 4)
    assert _fill(tmp_path, sharer, ITEMS) == 4


def test_missing_items_are_counted(sharer: Any, tmp_path: Path) -> None:
    with pytest.raises(CacheIncomplete, match="is empty"):
        FeatureCache(tmp_path, ITEMS)
    _fill(tmp_path, sharer, ITEMS[:3])
    with pytest.raises(CacheIncomplete, match="1 of 4 items"):
        FeatureCache(tmp_path, ITEMS)


def test_two_processes_do_not_fill_one_cache(sharer: Any, tmp_path: Path) -> None:
    from filelock import FileLock

    writer = _writer(tmp_path, sharer)
    with FileLock(tmp_path / ".lock"), pytest.raises(RuntimeError, match="another process"):
        writer.fill(ITEMS, Progress(disable=True))


def test_one_folder_serves_all_runs_that_read_alike(tmp_path: Path) -> None:
    sharer = ModelRef("tiny", "0" * 64)
    first = cache_folder(sharer, STYLE, SELECTION, str(tmp_path))
    assert first == cache_folder(sharer, STYLE, SelectionConfig(positions=9), str(tmp_path))
    others = [
        cache_folder(ModelRef("tiny", "1" * 64), STYLE, SELECTION, str(tmp_path)),
        cache_folder(sharer, PromptStyle("", {}, ""), SELECTION, str(tmp_path)),
        cache_folder(sharer, STYLE, SelectionConfig(first_layer=0.5), str(tmp_path)),
        cache_folder(sharer, STYLE, SELECTION, str(tmp_path), "bfloat16"),
        cache_folder(sharer, STYLE, SELECTION, str(tmp_path), drafts=True),
    ]
    assert len({first, *others}) == 6


def _drafting(sharer: Any) -> SharerReading:
    model, tokenizer = sharer
    return SharerReading(model, tokenizer, STYLE, SELECTION, drafts=True)


def test_a_draft_is_kept_with_the_bits_that_the_service_sends(sharer: Any, tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    model, tokenizer = sharer
    service, head = Sharer(model, tokenizer, bundle), bundle.require_translate()
    lab = SharerReading(model, tokenizer, bundle.config.sharer_prompt, bundle.config.selection, drafts=True)
    for item in (_document(1, questions=3), _document(2)):
        features, cached = lab.read_item(item)
        assert isinstance(cached, Cached) and len(features) == cached.rows
        for question in cached.questions:
            for quoted in (0, 3):
                layout = service.layout(
                    document_sections(item.document, question.text),
                    SliceKind.DRAFT,
                    99,
                    Plan(codec="raw", quoted=quoted),
                )
                (reading,) = service.read(
                    [layout.prompt], head.layers, [layout.exported], asking=True, draft=layout.drafting
                )
                sent = [segment.tensor for segment in service.cut(reading, layout)]
                every = torch.arange(cached.count)
                chosen = choose(question.scores, every, bundle.config.selection, quoted)
                rows = features[torch.cat((chosen, question.drafted))]
                assert len(sent) == bool(len(rows))
                assert all(torch.equal(head.encode(rows), codes) for codes in sent)
                assert question.draft == reading.draft
                assert question.written == tokenizer.decode(reading.draft).strip()
        assert any(question.draft for question in cached.questions)


def test_a_cache_with_drafts_gives_back_what_was_written(sharer: Any, tmp_path: Path) -> None:
    items = [_document(1), ITEMS[2], _document(3, questions=1)]
    writer = CacheWriter(tmp_path, _drafting(sharer))
    assert writer.fill(items, Progress(disable=True)) == (3, 0)
    cache = FeatureCache(tmp_path, items)
    for item, cached in zip((items[0], items[2]), cache.documents, strict=True):
        features, read = _drafting(sharer).read_item(item)
        assert isinstance(read, Cached)
        for found, wanted in zip(cached.questions, read.questions, strict=True):
            assert (found.draft, found.written) == (wanted.draft, wanted.written)
            assert torch.equal(found.drafted, wanted.drafted)
            assert torch.allclose(cache.raw(cached, found.drafted), features[wanted.drafted], atol=2e-2)
    assert any(question.draft for cached in cache.documents for question in cached.questions)


def test_a_cache_with_drafts_that_was_torn_is_made_whole(sharer: Any, tmp_path: Path) -> None:
    items = [_document(1), _document(3), _document(2)]
    CacheWriter(tmp_path, _drafting(sharer)).fill(items, Progress(disable=True))
    whole = (tmp_path / FEATURES).read_bytes(), (tmp_path / INDEX).read_bytes()
    (tmp_path / FEATURES).write_bytes(whole[0][:-5])  # of the last draft
    with pytest.raises(CacheIncomplete, match="1 of 3 items"):
        FeatureCache(tmp_path, items)
    assert CacheWriter(tmp_path, _drafting(sharer)).fill(items, Progress(disable=True)) == (1, 0)
    assert ((tmp_path / FEATURES).read_bytes(), (tmp_path / INDEX).read_bytes()) == whole
