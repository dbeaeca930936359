"""Several clouds behind one edge: one Receiver in memory, a client for each cloud, the first that has the document.

    python examples/several_clouds.py "Where is the spare key?" note-1 house.toml archive.toml

Each configuration names a cloud, with certificates of its own; all name the same bundle, since the Receiver is loaded
once, as the first one says. A cloud that does not know the document, or is not there, is passed over.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence

from edge_node import Assistant, Client, EdgeConfig, KvwireError


@contextlib.contextmanager
def assistants(configs: Sequence[str]) -> Iterator[list[Assistant]]:
    """An assistant for each cloud, all around the Receiver of the first. They take turns: ask from one thread."""
    with contextlib.ExitStack() as opened:
        first = opened.enter_context(Assistant.from_config(configs[0]))
        every = [first]
        for path in configs[1:]:
            config = EdgeConfig.load(path)
            every.append(opened.enter_context(Assistant(config, first.receiver, Client(config))))
        yield every


def main(question: str, document: str, configs: Sequence[str]) -> int:
    """Print the first answer, and what the clouds before it said; returns the exit status."""
    with assistants(configs) as every:
        for assistant in every:
            address = assistant.config.cloud.address
            try:
                answer = assistant.ask(question, document=document)
            except KvwireError as error:
                print(f"{address}: {error.public_text}")
                continue
            if answer.answered:
                print(f"{address}: {answer.text}")
                return 0
            print(f"{address}: no answer ({answer.reason})")
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
