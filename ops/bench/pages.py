"""The tables and pictures of reports that were measured before, put into a page again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ops.tables import check_marks, put

_MODULES: Final = {"link": "link_report"}
"""Which module draws a benchmark, where it is not the one of its name."""


def put_report(path: Path, page: Path, pictures: Path) -> None:
    """Put a report's table into its place of a page, and draw its picture, where it has one, as NAME.png.

    Raises:
        ValueError: the file is no report, or the page has no place `<!-- kvwire bench NAME -->` for it.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    name = report.get("bench") if isinstance(report, dict) else None
    if not isinstance(name, str) or not name.isalpha():
        raise ValueError(f"{path} is no report of `kvwire bench`")
    check_marks(page, name, "bench")
    module = import_module(f"ops.bench.{_MODULES.get(name, name)}")
    parts = [module.markdown(report), _made(report)]
    if hasattr(module, "plot"):
        pictures.mkdir(parents=True, exist_ok=True)
        picture = pictures / f"{name}.png"
        module.plot(report, picture)
        seen = Path(os.path.relpath(picture, page.parent)).as_posix()
        parts.insert(0, f"![what bench {name} found]({seen})")
    put("\n\n".join(parts), page, name, "bench")


def _made(report: Mapping[str, Any]) -> str:
    """When, where and of what."""
    machine = report["machine"]
    where = f"{machine['cores']} cores ({machine['processor']}), {machine['accelerator'] or 'no GPU'}"
    asked = ", ".join(f"{key} {_told(value)}" for key, value in report["settings"].items())
    load = f"load {machine['load_before']} before and {machine['load_after']} after"
    return f"{report['date'][:10]}, {where}, {load}, {report['seconds']:,.0f} s; {asked}."


def _told(value: object) -> str:
    return " ".join(str(one) for one in value) if isinstance(value, list) else str(value)
