"""Home: the process that something was made in. Its threads and connections do not live on in a forked child."""

from __future__ import annotations

import os


class Home:
    """This process. `what` was made here, for the message."""

    def __init__(self, what: str) -> None:
        self._what, self._pid = what, os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is still the process, not a child forked from it."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Nothing where this is still the process.

        Raises:
            RuntimeError: this is a child forked from it.
        """
        if not self.here:
            raise RuntimeError(
                f"{self._what} was made before this process was forked: make one in each process"
            )
