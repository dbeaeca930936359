"""The page of an edge without a browser: its files, its headers, who gets it, its colours."""

import re
from pathlib import Path

import pytest

import edge_node
from edge_node import Assistant
from edge_node.page_files import PATHS
from tests.edge_node.local_api import Api, serving_api

FOLDER = Path(edge_node.__file__).parent / "page"
SCRIPTS = sorted(FOLDER.glob("*.js"))


def test_every_file_of_the_page_is_served_and_allows_nothing_from_elsewhere(api: Api) -> None:
    assert {f"/page/{path.name}" for path in FOLDER.iterdir()} - {"/page/index.html"} == PATHS - {"/"}
    for path in PATHS:
        status, text, headers = api.call(b"", "GET", path)
        assert status == 200 and text
        policy = headers["content-security-policy"]
        assert (
            "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        )
        assert headers["x-content-type-options"] == "nosniff" and "charset=utf-8" in headers[
            "content-type"
        ] + ("charset=utf-8" if path.endswith(".svg") else "")


def test_the_page_needs_no_key_and_what_it_asks_for_does(assistant: Assistant, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a-key\n", encoding="utf-8")
    with serving_api(assistant, keys_file=str(tmp_path / "keys")) as api:
        assert {api.call(b"", "GET", path)[0] for path in PATHS} == {200}
        assert api.call(b"", "GET", "/healthz")[1]["keys"] is True
        assert api.call(b"", "GET", "/v1/models")[0] == 401


def test_the_page_is_for_loopback_names_and_origins_alone(api: Api) -> None:
    assert api.call(b"", "GET", "/", Host="evil.example")[0] == 400
    assert api.call(b"", "GET", "/", Origin="https://evil.example")[0] == 403


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|innerHTML|insertAdjacentHTML|\beval\(|document\.write", text), (
            path.name
        )


def test_what_scripts_look_up_stands_in_the_page() -> None:
    known = set(re.findall(r'\bid="([\w-]+)"', (FOLDER / "index.html").read_text(encoding="utf-8")))
    asked = {name for path in SCRIPTS for name in re.findall(r'byId\("([\w-]+)"\)', path.read_text("utf-8"))}
    assert asked <= known


TEXTS = [
    *((ink, paper) for ink in ("ink", "soft", "accent", "error", "guess") for paper in ("paper", "card")),
    ("on-accent", "accent"),
]
SHAPES = [
    (mark, paper)
    for mark in ("line", "accent", "stage-a", "stage-b", "stage-c")
    for paper in ("paper", "card")
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_pair_of_colours_has_the_contrast_of_wcag_aa(scheme: str) -> None:
    light, dark = re.findall(r":root \{([^}]*)\}", (FOLDER / "page.css").read_text(encoding="utf-8"))
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark))
    assert colours.keys() == {name for pair in (*TEXTS, *SHAPES) for name in pair}
    for pairs, least in ((TEXTS, 4.5), (SHAPES, 3.0)):
        for one, other in pairs:
            assert contrast(colours[one], colours[other]) >= least, (one, other)


def test_colours_are_named_in_one_place() -> None:
    rules = re.sub(r":root \{[^}]*\}", "", (FOLDER / "page.css").read_text(encoding="utf-8"))
    assert not re.search(r"#[0-9a-f]{3,8}\b(?=[;\s])|rgb|hsl", rules)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance of "#rrggbb"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
