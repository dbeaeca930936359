"""`python -m cloud_node --config cloud.toml`: a cloud node in the foreground.

When it can answer it writes one line of JSON to standard output: {"listening": "host:port"}.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys

from cloud_node import CloudConfig, leave, run
from kvwire.errors import KvwireError


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 after an orderly end, 1 if the node cannot start or lost Ray, 2 for a wrong configuration."""
    parser = argparse.ArgumentParser(prog="python -m cloud_node", description="Run a cloud node.")
    parser.add_argument("--config", required=True, help="cloud.toml")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = CloudConfig.load(arguments.config)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        run(config, _ready)
    except (KvwireError, ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:  # before the node listens to signals
        return 130
    return 0


def _ready(address: str) -> None:
    sys.stdout.write(json.dumps({"listening": address}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    leave(main())
