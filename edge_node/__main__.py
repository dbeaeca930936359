"""`python -m edge_node --config edge.toml`: the local API in the foreground.

When it can answer it writes one line of JSON to standard output: {"listening": "host:port"}.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys

from edge_node import EdgeConfig, run


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 after an orderly end, 2 for a wrong configuration."""
    parser = argparse.ArgumentParser(prog="python -m edge_node", description="Run an edge node.")
    parser.add_argument("--config", required=True, help="edge.toml")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = EdgeConfig.load(arguments.config)
        config.check_files()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    run(config, _ready)
    return 0


def _ready(address: str) -> None:
    sys.stdout.write(json.dumps({"listening": address}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
