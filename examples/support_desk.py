"""A support desk: questions about one ticket, which stays in the cloud; each answer is shown as it comes.

    python examples/support_desk.py edge.toml ticket-17 "Which version runs there?" "What was tried?"

The ticket is a document of this edge's tenant: `kvwire documents add ticket.txt --id ticket-17 --tenant acme`. The
cloud reads it and sends a slice; the answer is written here. Without a slice nothing is guessed, and the line says why.
"""

import sys
from collections.abc import Sequence

from edge_node import Ask, Assistant, NotFound
from edge_node.answer import explained

SECONDS = 10.0
"""That the cloud has for a slice. A caller waits at the other end of the line."""


def main(config: str, ticket: str, questions: Sequence[str]) -> int:
    """Answer every question; returns how many got no answer."""
    missing = 0
    with Assistant.from_config(config) as assistant:
        for question in questions:
            print(f"{question}\n  ", end="")
            try:
                with assistant.stream(Ask(question, document=ticket, deadline_s=SECONDS)) as pieces:
                    for piece in pieces:
                        print(piece, end="", flush=True)
                answer = pieces.answer
            except NotFound:
                print(f"there is no ticket {ticket} for this edge")
                return len(questions)
            if not answer.answered:
                missing += 1
                print(f"no answer: {explained(answer, assistant.config.cloud.address)}")
            elif answer.abstained:
                print("\n  (the ticket does not say)")
            else:
                print(f"\n  ({answer.positions} positions of the ticket, {answer.bytes_received:,} bytes)")
    return missing


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1], sys.argv[2], sys.argv[3:])))
