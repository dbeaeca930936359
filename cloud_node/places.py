"""Places: how many calls may be under way, in all and for each tenant and host, so that one cannot take them all."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping

from kvwire.errors import Busy


class Places:
    """Counts who holds a place. Used within one event loop.

    Args:
        most: places in all.
        each: places that one value of a key may hold, by key: {"tenant": 16, "host": 32}.
        retry_after_s: when a caller without a place is told to come again.
    """

    def __init__(self, most: int, each: Mapping[str, int], retry_after_s: float) -> None:
        self._most, self._each, self._retry_after_s = most, dict(each), retry_after_s
        self._held: Counter[tuple[str, str]] = Counter()
        self._taken = 0

    @contextlib.contextmanager
    def held(self, **who: str) -> Iterator[None]:
        """Hold a place while the context lasts.

        Args:
            who: the caller's value of each key.

        Raises:
            Busy: there is none left, in all or for one of these values.
        """
        keys = [(key, who[key]) for key in self._each]
        if self._taken >= self._most or any(self._held[at] >= self._each[at[0]] for at in keys):
            raise Busy(self._retry_after_s)
        self._taken += 1
        self._held.update(keys)
        try:
            yield
        finally:
            self._taken -= 1
            for at in keys:
                self._held[at] -= 1
                if not self._held[at]:
                    del self._held[at]  # or every caller there ever was would be remembered
