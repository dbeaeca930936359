"""A world of the tiny pair, shared by the tests of faults."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ops.chaos.world import TinyWorld


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator["TinyWorld"]:
    from ops.chaos.world import TinyWorld

    with TinyWorld(tmp_path_factory.mktemp("world")) as made:
        yield made
