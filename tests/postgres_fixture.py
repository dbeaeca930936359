"""A real PostgreSQL server of the tests' own, where one is installed and psycopg is.

def test_something(postgres: Postgres) -> None:
    documents = Documents(postgres.new_store())
"""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_START_S = 60.0
_SYSTEM_USER = "postgres"
"""Whom the server belongs to where the tests are root's: it refuses to be."""


class Postgres:
    """A server on a socket in a folder of its own; nothing is synced to the disk."""

    def __init__(self, folder: Path, programs: str) -> None:
        self._folder, self._programs = folder, programs
        self._owner = _SYSTEM_USER if os.geteuid() == 0 else None
        self._numbers = itertools.count()
        if self._owner:
            shutil.chown(folder, self._owner, self._owner)
        how = ("--username=kvwire", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        self._run("initdb", f"--pgdata={folder / 'data'}", *how).wait(_START_S)
        self.start()

    def _run(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        log = (self._folder / "log").open("ab")
        with log:
            return subprocess.Popen(
                [f"{self._programs}/{program}", *arguments],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=self._owner,
                group=self._owner,
                extra_groups=[] if self._owner else None,
                start_new_session=True,
            )

    def new_store(self) -> str:
        """The URL of a schema with nothing in it, which is made in a hundredth of a database's time."""
        name = f"t{next(self._numbers)}"
        with self._connect() as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"postgresql+psycopg://kvwire@/postgres?host={self._folder}&options=-csearch_path%3D{name}"

    def _connect(self) -> Any:
        import psycopg

        return psycopg.connect(host=str(self._folder), user="kvwire", dbname="postgres", autocommit=True)

    def start(self) -> None:
        """Start, again after `kill`; returns once it answers."""
        import psycopg

        options = ("-c", "listen_addresses=", "-c", "fsync=off")
        self._process = self._run(
            "postgres", "-D", f"{self._folder / 'data'}", "-k", str(self._folder), *options
        )
        until = time.monotonic() + _START_S
        while True:
            try:
                self._connect().close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise RuntimeError((self._folder / "log").read_text(errors="replace")) from None
                time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its processes."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):
            os.kill(pid, number)
        if number is signal.SIGKILL:
            self._process.wait(_START_S)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server."""
    pytest.importorskip("psycopg")
    installed = shutil.which("initdb") or max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
    if installed is None:
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(tempfile.mkdtemp(prefix="kvwire-postgres-"))
    try:
        server = Postgres(folder, str(Path(installed).resolve().parent))
        yield server
        server.signal(signal.SIGKILL)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of documents, of each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'documents.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_store()
