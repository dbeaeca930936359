"""Coverage-guided fuzzing of whatever takes bytes, in an environment that has atheris besides what the tests need.

    python tests/fuzz/guided.py FOLDER --seconds 600

Each entry (`ops.chaos.fuzz.targets`) has its own share of the time, in a process forked for it: among others, the few
that load a bundle would take nearly all of it. What an entry refuses by name, or takes, is as it should be; anything
else is a crash, and more than 5 s a hang: the input is kept in FOLDER/found under its reason, and the run goes on.
Inputs that reached code that no other had reached are in FOLDER/corpus, from which the next run begins. Only Python is
instrumented, so what C++ does of protobuf, zstd and safetensors guides nothing. Entries that read files have them in
FOLDER: one in memory is faster.
"""

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import random
import re
import resource
import sys
import time
from collections.abc import Callable, MutableSequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import atheris

if TYPE_CHECKING:
    from ops.chaos.fuzz import Target

_SLOW_S: Final = 5.0
_MEMORY_MIB: Final = 6_144
_MOST_BYTES: Final = 1 << 18
_OURS: Final = ["kvwire", "fuser", "cloud_node", "edge_node"]
_ENDINGS: Final = ("refused", "taken", "crash", "hang")


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage-guided fuzzing.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    found, corpus, world = (asked.folder / name for name in ("found", "corpus", "world"))
    for folder in (found, corpus, world / "fuzz"):
        folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.CRITICAL)

    with atheris.instrument_imports(include=_OURS, enable_loader_override=False):
        from ops.chaos import fuzz
        from ops.chaos.world import TinyWorld

        open_world = TinyWorld(world)
        open_world.__enter__()
        targets = fuzz.targets(open_world, world / "fuzz")
    counts: dict[str, dict[str, int]] = {}
    began = time.monotonic()
    for place, (name, target) in enumerate(targets.items()):
        own = corpus / re.sub(r"\W+", "-", name)
        own.mkdir(exist_ok=True)
        for sample in target.samples:
            (own / hashlib.sha1(sample).hexdigest()).write_bytes(sample)
        left_s = asked.seconds - (time.monotonic() - began)
        share_s = max(1, round(left_s / (len(targets) - place)))
        ended = multiprocessing.RawArray("Q", len(_ENDINGS))
        child = os.fork()
        if not child:
            random.seed(asked.seed)
            options = [f"-max_total_time={share_s}", f"-seed={asked.seed}", f"-max_len={_longest(target)}"]
            options += ["-len_control=0", f"-rss_limit_mb={_MEMORY_MIB}", "-timeout=60", "-verbosity=0"]
            atheris.Setup([sys.argv[0], *options, str(own)], _taker(name, target, ended, found))
            atheris.Fuzz()
        _, status = os.waitpid(child, 0)
        counts[name] = dict(zip(_ENDINGS, ended, strict=True)) | {"status": status}
        told = {
            "seconds": round(time.monotonic() - began, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
            "executions": sum(row[ending] for row in counts.values() for ending in _ENDINGS),
            "entries": counts,
        }
        (asked.folder / "counts.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def _longest(target: "Target") -> int:
    return min(_MOST_BYTES, 64 + 4 * max(map(len, target.samples)))


def _taker(name: str, target: "Target", ended: MutableSequence[int], found: Path) -> Callable[[bytes], None]:
    """What libFuzzer calls; how each call ended is counted in `ended`, as `_ENDINGS` are."""

    def keep(why: str, data: bytes) -> None:
        path = found / hashlib.sha1(f"{name} {why}".encode()).hexdigest()[:16]
        if not path.exists():
            path.write_bytes(data)
            path.with_suffix(".why").write_text(f"{name}: {why}\n", encoding="utf-8")

    def one(data: bytes) -> None:
        start = time.monotonic()
        try:
            target.take(data)
            ending = 1
        except target.refuses:
            ending = 0
        except Exception as error:
            ending, where = 2, error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
            keep(f"{type(error).__name__} at {line}", data)
        if time.monotonic() - start > _SLOW_S:
            ending = 3
            keep("slow", data)
        ended[ending] += 1

    return one


if __name__ == "__main__":
    main()
