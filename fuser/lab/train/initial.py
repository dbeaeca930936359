"""First values of heads from a bundle that is there already: to go on with it, to cut its codes, to give it a head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from fuser.bundle.bundle import Bundle, BundleConfig

_PAIR = ("sharer", "receiver", "sharer_geometry", "receiver_geometry", "receiver_prompt")
"""What the heads' numbers mean nothing without. How the Sharer is asked, and what selects, may change: what is said
at a position is read all the same."""
_PACE = ("anneal_steps", "initial_temperature", "final_temperature", "dropout")
"""Keys of a fuse head that say how it is trained and nothing of its shape."""


def start_from(bundle: Bundle, wanted: BundleConfig, heads: Mapping[str, nn.Module]) -> frozenset[str]:
    """Give untrained heads the numbers that a bundle's have; returns the names of those it has.

    A code may be shorter than the bundle's: its first numbers are worth most, and they are kept.

    Raises:
        ValueError: it is of another pair, or one of its heads has another shape or no table in the run.
    """
    config = bundle.config
    if odd := next((name for name in _PAIR if getattr(config, name) != getattr(wanted, name)), None):
        raise ValueError(f"init: the bundle has another {odd}")
    found = [name for name in ("translate", "fuse") if getattr(bundle, name) is not None]
    for name in found:
        if name not in heads:
            raise ValueError(f"init: the bundle has a {name} head; without a table [{name}] it would be lost")
        theirs, ours = getattr(config, name), getattr(wanted, name)
        state = getattr(bundle, name).state_dict()
        if name == "translate":
            dims = min(theirs.code_dim, ours.code_dim)
            theirs = replace(theirs, code_dim=dims)
            state["squeeze.weight"] = state["squeeze.weight"][:dims]
            state["widen.weight"] = state["widen.weight"][:, :dims]
        if name == "fuse" and type(theirs) is type(ours):
            theirs = replace(theirs, **{key: getattr(ours, key) for key in _PACE if hasattr(ours, key)})
        if theirs != ours:
            raise ValueError(f"init: the bundle has a {name} head of another shape than [{name}]")
        heads[name].load_state_dict(state)
    return frozenset(found)
