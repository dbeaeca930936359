"""Faults of the link, of the disk, of the database and of the clock, while an edge asks through a proxy."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from unittest import mock

from sqlalchemy import Engine, NullPool, create_engine, make_url

from ops.chaos.asker import CheckedEdge
from ops.chaos.history import Checker, HistoryLine
from ops.chaos.outcome import Ending, Tally
from ops.chaos.postgres import Postgres
from ops.chaos.trials import DOCUMENTS, PROMPTS
from ops.chaos.world import TinyWorld
from ops.link.background import BackgroundLink
from ops.link.fault import HOWS, Fault
from ops.link.shape import Shape

_FAST: Final = Shape(down_mbit=1_000, up_mbit=1_000)
_WORKERS: Final = 4
_DEADLINES_S: Final = (1.0, 2.0, 4.0)
_RECOVERY_S: Final = 45.0
_RECOVERING_S: Final = 3.0

Over = contextlib.AbstractContextManager[object]
"""A fault begins when it is entered, and is over when it is left."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """Where a fault happens."""

    world: TinyWorld
    link: BackgroundLink
    chance: random.Random


@contextlib.contextmanager
def _reshaped(scene: Scene, shape: Shape) -> Iterator[None]:
    scene.link.reshape(shape)
    try:
        yield
    finally:
        scene.link.reshape(_FAST)


@contextlib.contextmanager
def _broken(scene: Scene, fault: Fault) -> Iterator[None]:
    """On the connections that there are, and on the next few or all that come."""
    scene.link.strike(fault)
    scene.link.break_new(fault, scene.chance.choice((0, 1, 2, float("inf"))))
    try:
        yield
    finally:
        scene.link.break_new(None)


@contextlib.contextmanager
def _silent(scene: Scene) -> Iterator[None]:
    """Everything is taken and nothing carried, then all goes on: a cable out and in again."""
    scene.link.silence(True)
    try:
        yield
    finally:
        scene.link.silence(False)


def _on_the_link(how: str) -> Callable[[Scene], Over]:
    def begin(scene: Scene) -> Over:
        chance = scene.chance
        fault = Fault(
            way=chance.choice(("down", "up")),
            at=int(chance.choice((0, chance.uniform(0, 200), chance.uniform(0, 1_500)))),
            how=how,  # type: ignore[arg-type]
            seconds=chance.uniform(0.2, 5.0),
            size=chance.randint(1, 64),
        )
        return _broken(scene, fault)

    return begin


def _slow(scene: Scene) -> Over:
    return _reshaped(scene, dataclasses.replace(_FAST, rtt_ms=scene.chance.uniform(50, 800)))


def _jittery(scene: Scene) -> Over:
    return _reshaped(scene, dataclasses.replace(_FAST, rtt_ms=20, jitter_ms=scene.chance.uniform(50, 500)))


def _narrow(scene: Scene) -> Over:
    rate = scene.chance.choice((0.01, 0.03, 0.1, 0.5))
    return _reshaped(scene, Shape(down_mbit=rate, up_mbit=rate, rtt_ms=20))


LINK: Final[Mapping[str, Callable[[Scene], Over]]] = {
    **{f"connection: {how}": _on_the_link(how) for how in HOWS},
    "latency": _slow,
    "jitter": _jittery,
    "bandwidth": _narrow,
    "blackhole": _silent,
}
"""Faults of one edge's link: several edges may have theirs at a time."""


@contextlib.contextmanager
def _locked(scene: Scene) -> Iterator[None]:
    """Another process holds the database: for less than a deadline, or for longer than any."""
    held_s, engine = scene.chance.choice((0.3, 6.0)), _engine(scene)
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN EXCLUSIVE" if engine.name == "sqlite" else "LOCK TABLE documents")
        timer = threading.Timer(held_s, other.rollback)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            other.rollback()


@contextlib.contextmanager
def _dead(scene: Scene) -> Iterator[None]:
    """Every query fails."""
    engine = _engine(scene)
    with engine.begin() as other:
        other.exec_driver_sql("ALTER TABLE documents RENAME TO gone")
    try:
        yield
    finally:
        with engine.begin() as other:
            other.exec_driver_sql("ALTER TABLE gone RENAME TO documents")


def _engine(scene: Scene) -> Engine:
    url = make_url(scene.world.config.documents)
    wait = {"timeout": 30.0} if url.get_backend_name() == "sqlite" else {}
    return create_engine(url, poolclass=NullPool, connect_args=wait)


@contextlib.contextmanager
def _full(scene: Scene) -> Iterator[None]:
    """No file may grow: what a full disk says, to the audit log, the database and all else that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def _stepped(scene: Scene) -> Iterator[None]:
    """The clock jumps, by minutes or by months, for all Python code of both nodes."""
    step, true = scene.chance.choice((-1, 1)) * scene.chance.choice((90.0, 7_200.0, 1e7)), time.time
    with mock.patch("time.time", side_effect=lambda: true() + step):
        yield


@contextlib.contextmanager
def _replaced(scene: Scene) -> Iterator[None]:
    """Every document gets its other text, at some moment of the call."""

    def replace() -> None:
        for name, texts in DOCUMENTS.items():
            scene.world.put(name, texts.index(scene.world.versions[name]) ^ 1)

    timer = threading.Timer(scene.chance.uniform(0.0, 0.05), replace)
    timer.start()
    try:
        yield
    finally:
        timer.join()


WORLD: Final[Mapping[str, Callable[[Scene], Over]]] = {
    **(DATABASE := {"database locked": _locked, "database fails": _dead}),
    "disk full": _full,
    "clock step": _stepped,
    "documents replaced": _replaced,
}
"""Faults that all edges of a world have."""


def of_postgres(server: Postgres) -> Mapping[str, Callable[[Scene], Over]]:
    """Faults of a world whose documents lie in this server."""

    @contextlib.contextmanager
    def stopped(scene: Scene) -> Iterator[None]:
        server.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            server.signal(signal.SIGCONT)

    @contextlib.contextmanager
    def killed(scene: Scene) -> Iterator[None]:
        server.signal(signal.SIGKILL)
        try:
            yield
        finally:
            server.start()

    return {**DATABASE, "database stopped": stopped, "database killed": killed}


class Network:
    """One run over a world. `history` has every ask.

    Args:
        part, faults: what the run is called, and what it does.
    """

    def __init__(
        self,
        world: TinyWorld,
        seed: int,
        advance: Callable[[], None],
        part: str = "network",
        faults: Mapping[str, Callable[[Scene], Over]] = LINK | WORLD,  # type: ignore[operator]
    ) -> None:
        self._world, self._seed, self._advance = world, seed, advance
        self._checker, self._lock = Checker(world.truth.expected), threading.Lock()
        self._faults = faults
        self.tally, self.history = Tally(part), list[HistoryLine]()

    def run(self, indices: Iterable[int]) -> None:
        """The faults of these numbers: those of links some at a time, those of the world one by one."""
        names = list(self._faults)
        numbered = [(index, names[index % len(names)]) for index in indices]
        with ThreadPoolExecutor(_WORKERS) as workers:
            done = [workers.submit(self._one, index, name) for index, name in numbered if name in LINK]
            for one in done:
                one.result()
        for index, name in numbered:
            if name not in LINK:
                self._one(index, name)

    def _one(self, index: int, name: str) -> None:
        chance = random.Random(f"{self._seed}/{index}")
        deadline_s, prompt = chance.choice(_DEADLINES_S), chance.choice(PROMPTS)
        with BackgroundLink(self._world.address, _FAST) as link:
            scene = Scene(self._world, link, chance)
            with CheckedEdge(self._world, link.address, 20.0) as asker:
                if chance.random() < 0.7:  # over a connection that is there already
                    self._kept(asker.ask(chance.choice(PROMPTS), 20.0, index, "none"))
                with self._faults[name](scene):
                    asked = asker.ask(prompt, deadline_s, index, name)
                over = time.monotonic()
                ending, why = self._kept(asked)
                with self._lock:
                    self.tally.add(name, index, ending, why, asked.seconds)
                self._recover(asker, index, name, over)
        self._advance()

    def _recover(self, asker: CheckedEdge, index: int, name: str, since: float) -> None:
        chance = random.Random(f"{self._seed}/{index}/after")
        while True:
            asked = asker.ask(chance.choice(PROMPTS), _RECOVERING_S, index, "none")
            ending, why = self._kept(asked)
            with self._lock:
                if ending is Ending.FUSED:
                    self.tally.recovered(name, time.monotonic() - since)
                    return
                if time.monotonic() - since > _RECOVERY_S:
                    self.tally.add(name, index, Ending.HANG, f"no fused answer after it was over: {why}")
                    return
            time.sleep(0.02)

    def _kept(self, asked: HistoryLine) -> tuple[Ending, str]:
        """Into the history; how it ended."""
        with self._lock:
            self.history.append(asked)
            ending, why = self._checker.ending(asked)
            if asked.fault == "none" and ending in (Ending.WRONG, Ending.HANG, Ending.CRASH):
                self.tally.add("after or before a fault", asked.index, ending, why)
        return ending, why
