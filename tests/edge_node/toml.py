"""An EdgeConfig for the tiny pair, and as the file it would be read from."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_node.config import CloudPeer, EdgeConfig, ReceiverConfig, ShareConfig, TlsConfig

if TYPE_CHECKING:
    from ops.certs import Certificates


def edge_of(
    certificates: "Certificates", address: str, receiver: Path, bundle: Path, tokens: int, **share: Any
) -> EdgeConfig:
    """An edge of tenant acme that talks to the cloud at `address`, by `raw` where `share` says nothing else."""
    pair = certificates.edges["acme"]
    return EdgeConfig(
        tls=TlsConfig(str(pair.certificate), str(pair.key), str(certificates.ca.certificate)),
        receiver=ReceiverConfig(str(receiver), str(bundle), max_new_tokens=tokens),
        cloud=CloudPeer(address=address),
        share=ShareConfig(**{"codec": "raw"} | share),
    )


def write_toml(config: EdgeConfig, path: Path) -> Path:
    """Write `config` to `path`."""
    values = dataclasses.asdict(config)
    top = [f"{key} = {json.dumps(value)}" for key, value in values.items() if isinstance(value, str)]
    for name, table in values.items():
        if isinstance(table, dict):
            given = {key: value for key, value in table.items() if value is not None}
            top += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in given.items())]
    path.write_text("\n".join(top) + "\n", encoding="utf-8")
    return path
