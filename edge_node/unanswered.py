"""Why there is no slice, in words: what happened, and what to do next"""

from __future__ import annotations

from typing import Final

from edge_node.answer import EMPTY, NO_PLAN, NOTHING_TO_SHARE, Answer
from kvwire.errors import CATALOGUE

_LOOK: Final = "`kvwire doctor --config edge.toml` looks"
_DAMAGED: Final = (
    "what came from the cloud cannot be used; ask again, and see that both sides run the same version"
)
_WORDS: Final = {
    "UNREACHABLE": f"the cloud at {{address}} cannot be reached; is `kvwire cloud` running there? {_LOOK}",
    "BUSY": "the cloud at {address} has no room now; ask again in a moment",
    "DRAINING": "the cloud at {address} is shutting down; ask again when it is back",
    "DEADLINE_EXCEEDED": "the cloud's slice did not come in time; ask again, or allow more seconds (deadline)",
    "CANCELLED": "the call to the cloud was cut off; ask again",
    "INTERNAL": "the cloud at {address} failed; its log says why",
    "RELAY_DISABLED": "no plan is of use, and the cloud relays no text; allow more bytes or seconds, or name a plan",
    EMPTY: "what the cloud at {address} sent is empty; is there text in the document?",
    NO_PLAN: "no plan is of use within the bytes and the time allowed ({plan_reason}); allow more, or name a plan",
    NOTHING_TO_SHARE: "this edge's bundle makes no slice of such a prompt; take a bundle that does",
    **dict.fromkeys(("WIRE_ERROR", "BAD_HEADER", "BAD_CHECKSUM", "BAD_PAYLOAD"), _DAMAGED),
}
_TEXTS: Final = {entry.reason: entry.text.rstrip(".") for entry in CATALOGUE.values()}


def explained(answer: Answer, address: str) -> str:
    """One line about an answer that has a reason. `address`: of the cloud."""
    reason = answer.reason or "INTERNAL"
    words = _WORDS.get(reason) or f"{_TEXTS.get(reason, 'there is no slice')}; {_LOOK}"
    return words.format(address=address, plan_reason=answer.plan_reason)
