"""Hugging Face data sets by name."""

import json
import sys
from pathlib import Path

import pytest

from fuser.lab.data.hub import DatasetUnavailable, HubName, hub_rows
from fuser.lab.data.load import load


def test_a_name_has_an_owner_a_config_and_a_split() -> None:
    assert HubName.parse("hf:squad") == HubName("squad")
    assert HubName.parse("hf:rajpurkar/squad:validation") == HubName("rajpurkar/squad", None, "validation")
    assert HubName.parse("hf:allenai/ai2_arc/ARC-Challenge:test") == HubName(
        "allenai/ai2_arc", "ARC-Challenge", "test"
    )
    assert HubName.parse("hf:ceval/ceval-exam/*") == HubName("ceval/ceval-exam", "*")
    for bad in ("hf:", "hf:a//b", "hf:/a"):
        with pytest.raises(DatasetUnavailable, match="expected hf:OWNER/NAME"):
            HubName.parse(bad)


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetUnavailable, match=r"pip install 'kvwire\[train\]'"):
        load("hf:allenai/openbookqa/main")


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set on disk with two configs, read by the library as one from the hub."""
    pytest.importorskip("datasets")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    home = tmp_path / "quiz"
    configs = []
    for config in ("art", "law"):
        (home / config).mkdir(parents=True)
        row = {"id": 0, "question": f"{config}?", "A": "x", "B": "y", "C": "z", "D": "w", "answer": "C"}
        (home / config / "val.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        configs.append(
            f"- config_name: {config}\n  data_files:\n  - split: val\n    path: {config}/val.jsonl\n"
        )
    (home / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n", encoding="utf-8")
    return home


def test_every_config_can_be_read_and_names_the_subject(local: Path) -> None:
    rows = list(hub_rows(HubName(str(local), "*"), ("test", "val")))
    assert [(row.fields["subject"], row.id()) for row in rows] == [("art", "art-0"), ("law", "law-0")]
    assert rows[0].where.endswith("/art:val row 1")


def test_a_config_must_be_named_where_there_are_several(local: Path) -> None:
    with pytest.raises(DatasetUnavailable, match=r"2 configs \(art, law\)"):
        list(hub_rows(HubName(str(local)), ("val",)))
    assert len(list(hub_rows(HubName(str(local), "art"), ("val",)))) == 1


def test_a_missing_split_or_data_set_is_named(local: Path) -> None:
    with pytest.raises(DatasetUnavailable, match="no split train; it has val"):
        list(hub_rows(HubName(str(local), "art"), ("train",)))
    with pytest.raises(DatasetUnavailable, match="nowhere"):
        list(hub_rows(HubName(str(local / "nowhere"), "art"), ("train",)))
