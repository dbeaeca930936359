"""A real PostgreSQL server of the tests' own, where one can be run; KVWIRE_TEST_POSTGRES=1 insists.

def test_something(postgres: Postgres) -> None:
    documents = Documents(postgres.new_store())
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.chaos.postgres import NoPostgres, Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server; without one the test is skipped, or fails where KVWIRE_TEST_POSTGRES=1."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running_postgres())
        except NoPostgres as error:
            if os.environ.get("KVWIRE_TEST_POSTGRES") == "1":
                pytest.fail(str(error))
            pytest.skip(f"{error}; KVWIRE_TEST_POSTGRES=1 fails instead")
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of documents, of each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'documents.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_store()
