"""Configs are read strictly: every key known, present and of its type, and the key is named."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from fuser.config import BadConfig, from_dict, read_toml, to_dict


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Square:
    side: int
    kind: Literal["square"] = "square"


@dataclass(frozen=True)
class Disc:
    radius: float
    kind: Literal["disc"] = "disc"


@dataclass(frozen=True)
class Picture:
    name: str
    shape: Square | Disc
    layers: tuple[int | None, ...] = ()
    size: tuple[int, float] = (1, 2.0)
    colour: Colour = Colour.RED
    frame: Square | None = None
    notes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    draft: bool = False

    def __post_init__(self) -> None:
        if self.name == "":
            raise ValueError("name must not be empty")


WHOLE = Picture("a", Disc(1.5), (1, None), (2, 0.5), Colour.RED, Square(3), {"k": ("x", "y")}, True)


def test_what_is_written_reads_back_equal() -> None:
    assert from_dict(Picture, to_dict(WHOLE)) == WHOLE


def test_defaults_fill_in() -> None:
    read = from_dict(Picture, {"name": "a", "shape": {"kind": "square", "side": 2}})
    assert read == Picture("a", Square(2))


def test_a_whole_number_is_a_number() -> None:
    radius = from_dict(Disc, {"radius": 2}).radius
    assert radius == 2.0
    assert type(radius) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": "b"}, "unknown key nmae"),
        ({"shape": {"kind": "square", "side": 2, "top": 1}}, r"unknown key shape\.top"),
        ({"shape": {"kind": "square"}}, r"missing key shape\.side"),
        ({"shape": {"side": 2}}, "shape: fits none of Square, Disc"),
        ({"shape": {"kind": "cube", "side": 2}}, "shape: fits none of Square, Disc"),
        ({"shape": None}, "shape"),
        ({"name": 3}, "name: expected str, got int"),
        ({"name": ""}, "must not be empty"),
        ({"draft": 1}, "draft: expected bool, got int"),
        ({"layers": [1, True]}, r"layers\[1\]"),
        ({"layers": 1}, "layers: expected a list"),
        ({"size": [1, 2, 3]}, "size: expected 2 values, got 3"),
        ({"size": [1.5, 2]}, r"size\[0\]: expected int, got float"),
        ({"size": [1, float("nan")]}, r"size\[1\]: expected a finite number"),
        ({"shape": {"kind": "disc", "radius": float("inf")}}, "radius: expected a finite number"),
        ({"colour": "blue"}, "colour: expected one of"),
        ({"frame": {"kind": "disc", "radius": 1}}, "frame"),
        ({"notes": {"k": ["x"]}}, r"notes\.k: expected 2 values"),
        ({"notes": []}, "notes: expected a table"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        from_dict(Picture, {**to_dict(WHOLE), **change})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(BadConfig, match="missing key shape"):
        from_dict(Picture, {"name": "a"})


def test_only_a_table_is_read() -> None:
    with pytest.raises(BadConfig, match="a table is expected, got list"):
        from_dict(Picture, [])


def test_a_value_that_no_config_holds_is_not_written() -> None:
    with pytest.raises(BadConfig, match="bytes"):
        to_dict({"a": b""})


def test_a_file_nested_without_end_is_named_as_any_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "cloud.toml"
    path.write_text("side = " + "[" * 5_000, encoding="utf-8")
    with pytest.raises(BadConfig, match=r"cloud\.toml"):
        read_toml(Square, path)
