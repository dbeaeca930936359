"""Which cores of this machine each node of a stage has to itself."""

import os


def halves() -> dict[str, list[int]]:
    """By node: the first half of the cores that this process may use, by number, for the cloud; the rest for the edge.

    Raises:
        ValueError: the system cannot keep a process on some cores, or there is but one.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("--pin: this system cannot keep a process on some of the cores; Linux can")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ValueError("--pin: each node needs a core of its own, and there is only one")
    half = len(cores) // 2
    return {"cloud": cores[:half], "edge": cores[half:]}
