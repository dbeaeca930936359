"""How many connections a process may hold: each side listens, and each connection is a descriptor."""

import resource


def raise_descriptors() -> None:
    """As many as the system lets this process have: half-open connections must not keep callers out."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
