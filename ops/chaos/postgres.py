"""A real PostgreSQL server of one's own, where one is installed and psycopg is: to be stopped, killed and started."""

import contextlib
import importlib.util
import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_START_S = 60.0
_SYSTEM_USER = "postgres"
"""Whom the server belongs to where root starts it, whose it refuses to be."""


class Postgres:
    """A server on a socket in a folder of its own; nothing is synced to the disk."""

    def __init__(self, folder: Path, programs: str) -> None:
        self._folder, self._programs = folder, programs
        self._owner = _SYSTEM_USER if os.geteuid() == 0 else None
        self._numbers = itertools.count()
        if self._owner:
            shutil.chown(folder, self._owner, self._owner)
        how = ("--username=kvwire", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        if self._run("initdb", f"--pgdata={folder / 'data'}", *how).wait(_START_S):
            raise RuntimeError(self._log())
        self.start()

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

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
        try:
            while True:
                try:
                    self._connect().close()
                    return
                except psycopg.OperationalError:
                    if time.monotonic() > until or self._process.poll() is not None:
                        raise RuntimeError(self._log()) from None
                    time.sleep(0.05)
        except BaseException:  # nobody else knows of the process
            self.signal(signal.SIGKILL)
            raise

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its processes."""
        own = self._process.pid
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
            for pid in (own, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        if number is signal.SIGKILL:
            self._process.wait(_START_S)


class NoPostgres(RuntimeError):
    """No server can be run here; says why."""


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server in a folder of its own. Raises NoPostgres."""
    installed = shutil.which("initdb") or max(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version, default=None
    )
    if importlib.util.find_spec("psycopg") is None:
        raise NoPostgres("psycopg is not installed")
    if installed is None:
        raise NoPostgres("no PostgreSQL server is installed")
    if os.geteuid() == 0 and _SYSTEM_USER not in {user.pw_name for user in pwd.getpwall()}:
        raise NoPostgres(f"root cannot run PostgreSQL, and there is no system user {_SYSTEM_USER}")
    folder = Path(tempfile.mkdtemp(prefix="kvwire-postgres-"))
    try:
        server = Postgres(folder, str(Path(installed).resolve().parent))
        try:
            yield server
        finally:
            server.signal(signal.SIGKILL)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _version(initdb: Path) -> tuple[int, ...]:
    """Of the folder VERSION/bin/initdb: 9.6 is before 16."""
    return tuple(int(number) for number in re.findall(r"\d+", initdb.parts[-3]))
