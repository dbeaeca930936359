"""One thing that `kvwire doctor` found, and how a look that fails becomes one"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kvwire.errors import DeadlineExceeded


class State(StrEnum):
    """How good a finding is; BAD makes the command fail."""

    GOOD = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `then`: what to do next; empty where there is nothing to do."""

    state: State
    what: str
    found: str
    then: str = ""

    def to_dict(self) -> dict[str, str]:
        """As plain JSON."""
        return {"state": str(self.state), "what": self.what, "found": self.found, "then": self.then}


def looked(what: str, look: Callable[[], Iterator[Finding]], then: str = "") -> Iterator[Finding]:
    """What `look` finds; where it fails, that is a finding about `what` and not an exception.

    What was late is looked at once more: one late answer of a machine under load says nothing.
    """
    for last in (False, True):
        found: list[Finding] = []
        try:
            found.extend(look())
        except Exception as error:  # whatever is broken here is what the person wants to know
            if isinstance(error, TimeoutError | DeadlineExceeded) and not last:
                continue
            told = str(error) or "no answer in time, twice"
            found.append(Finding(State.BAD, what, f"{type(error).__name__}: {told}", then or _MEND))
        yield from found
        return


_MEND: Final = "mend what the error names"
