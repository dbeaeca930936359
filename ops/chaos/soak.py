"""Soak: many asks of a cloud on Ray, each answer checked, and whether anything grows on either side."""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from ops.chaos.asker import CheckedEdge
from ops.chaos.history import Checker
from ops.chaos.outcome import Tally
from ops.chaos.stage import REPLICA, Staged, member_of
from ops.chaos.trials import DOCUMENTS, PROMPTS

PART: Final = "soak"
_ASKERS: Final = 8
_DEADLINE_S: Final = 20.0
_SAMPLES: Final = 200
_WARM: Final = (0.3, 0.4)
_LATE: Final = (0.9, 1.0)
"""Which part of the run is after warm-up, and which is the end."""
_REPLACED_EVERY: Final = 250
_MIB: Final = 1 << 20


def run(folder: Path, seed: int, requests: int, most_s: float, advance: Callable[[], None]) -> dict[str, Any]:
    """So many asks by a few edges at a time, or as many as `most_s` has time for; documents are replaced meanwhile."""
    tally, lock, samples = Tally(PART), threading.Lock(), list[dict[str, float]]()
    with Staged(folder) as stage:
        checker, numbers = Checker(stage.truth.expected), iter(range(requests))
        seen = _Seen(stage)
        began = time.monotonic()

        def work() -> None:
            with CheckedEdge(stage, stage.address, _DEADLINE_S) as asker:
                while True:
                    with lock:
                        number = next(numbers, None)
                        if number is None or time.monotonic() - began > most_s:
                            return
                        if number % max(1, requests // _SAMPLES) == 0:
                            samples.extend(seen.sample())
                        if number % _REPLACED_EVERY == _REPLACED_EVERY - 1:
                            _replace(stage, random.Random(f"{seed}/{number}"))
                    prompt = random.Random(f"{seed}/{number}").choice(PROMPTS)
                    asked = asker.ask(prompt, _DEADLINE_S, number, "none")
                    with lock:
                        tally.add(str(prompt.kind), number, *checker.ending(asked), seconds=asked.seconds)
                        advance()

        with ThreadPoolExecutor(_ASKERS) as workers:
            for done in [workers.submit(work) for _ in range(_ASKERS)]:
                done.result()
        seconds = time.monotonic() - began
    resources = {name: [_mean(samples, name, *part) for part in (_WARM, _LATE)] for name in samples[0]}
    return tally.to_dict() | {
        "seconds": seconds,
        "resources": resources,
        "replicas_ended": seen.ended,
    }


def _replace(stage: Staged, chance: random.Random) -> None:
    name = chance.choice(list(DOCUMENTS))
    stage.put(name, DOCUMENTS[name].index(stage.versions[name]) ^ 1)


class _Seen:
    """The processes that are looked at; `ended` counts replicas that were replaced meanwhile."""

    def __init__(self, stage: Staged) -> None:
        self._cloud, self.ended = stage.cloud.pid, 0
        self._replica = member_of(self._cloud, REPLICA)

    def sample(self) -> list[dict[str, float]]:
        """Memory, threads and open files of each process; none while there is no replica."""
        if self._replica is None or not Path(f"/proc/{self._replica}").exists():
            self.ended += self._replica is not None
            self._replica = member_of(self._cloud, REPLICA)
        pids = {"edges": os.getpid(), "gateway": self._cloud, "replica": self._replica}
        try:
            return [{name: value for of, pid in pids.items() for name, value in _resources(of, pid)}]
        except OSError:
            return []


def _resources(of: str, pid: int | None) -> Iterator[tuple[str, float]]:
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    yield f"{of}: MiB", int(values["VmRSS"].split()[0]) * 1024 / _MIB
    yield f"{of}: threads", float(values["Threads"])
    yield f"{of}: open files", float(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))


def _mean(samples: list[dict[str, float]], name: str, begins: float, ends: float) -> float:
    part = samples[int(begins * len(samples)) : max(int(ends * len(samples)), int(begins * len(samples)) + 1)]
    return statistics.fmean(sample[name] for sample in part)
