"""`kvwire documents warm`: reads the documents of a cloud with a model of this process."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cloud_node.prefixes import ReadOutcome
from fuser import StoredText

if TYPE_CHECKING:
    from cloud_node import CloudConfig


def warm(
    config: "CloudConfig", tenant: str | None, begin: Callable[[int], None], advance: Callable[[], None]
) -> dict[str, Any]:
    """Read what is not on disk yet, of one tenant or of all; what became of the documents, and what lies on disk.

    Args:
        begin: called with how many documents there are, once the model is loaded. advance: after each of them.

    Raises:
        ValueError: the configuration keeps nothing on disk.
        and what `Replica.load` raises.
    """
    from cloud_node.documents import Documents
    from cloud_node.replica import Replica

    files = config.prefix_files
    if files is None:
        raise ValueError('[sharer] prefix_store is "": nothing that is read is kept on disk')
    prefixes = Replica.load(config).prefixes
    documents = Documents(config.documents)
    try:
        texts = [StoredText(*one) for one in documents.newest()]
    finally:
        documents.close()
    begin(len(texts))
    files.forget_all_but(set(texts))
    counts: Counter[ReadOutcome] = Counter()
    for text in texts:
        if tenant is None or text.owner == tenant:
            counts[prefixes.read(text)] += 1
        advance()
    return {str(outcome): counts[outcome] for outcome in ReadOutcome} | {"bytes": files.bytes}
