"""The envelope of a benchmark: what was run, where, with which versions and seed, when and for how long."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

_SERVICE: Final = ("grpcio", "ray", "zstandard", "xxhash")  # packages that the nodes run on
VERSION: Final = 1
"""Of the layout below; it grows when a key is renamed or removed."""


def measured(
    bench: str, settings: Mapping[str, Any], seed: int | None, work: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """Run `work` and wrap what it returns; plain JSON values.

    Args:
        bench: the subcommand's name.
        settings: what was asked for, as given.
        seed: None where nothing is drawn by chance.

    Returns:
        "bench", "envelope", "date" (UTC, when it began), "seconds", "settings", "seed", "machine", "versions",
        "results". The load of the machine stands in "machine" before and after: a busy one measures its neighbours.
    """
    from fuser.lab.evaluate.provenance import machine, versions

    date, began, load = datetime.now(UTC), time.monotonic(), _load()
    results = dict(work())
    return {
        "bench": bench,
        "envelope": VERSION,
        "date": date.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 3),
        "settings": dict(settings),
        "seed": seed,
        "machine": machine() | {"load_before": load, "load_after": _load()},
        "versions": versions(*_SERVICE),
        "results": results,
    }


def _load() -> float | None:
    """Processes that want to run, averaged over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
