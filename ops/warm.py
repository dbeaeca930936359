"""`kvwire documents warm`: reads the documents of a cloud with a model of this process."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from cloud_node.prefixes import ReadOutcome

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
        RuntimeError: another process of this machine is reading them.
        and what `Replica.load` raises.
    """
    from cloud_node.replica import Replica
    from ops.output import loading

    files = config.prefix_files
    if files is None:
        raise ValueError('[sharer] prefix_store is "": nothing that is read is kept on disk')
    with loading("the Sharer"):
        replica = Replica.load(config)
    try:
        counts = replica.prefixes.read_all(files, tenant, begin, advance)
    except Timeout:
        raise RuntimeError("another process of this machine is reading the documents already") from None
    return {str(outcome): counts[outcome] for outcome in ReadOutcome} | {"bytes": files.bytes}
