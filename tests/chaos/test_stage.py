"""The stage of faults of processes: its nodes are configured by files, as any."""

from pathlib import Path
from typing import TYPE_CHECKING

from cloud_node.config import CloudConfig
from edge_node import EdgeConfig
from ops.chaos.stage import write_config

if TYPE_CHECKING:
    from ops.chaos.world import TinyWorld


def test_what_is_written_of_a_nodes_configuration_is_loaded_as_it(world: "TinyWorld", tmp_path: Path) -> None:
    edge = world.edge(world.address, 2.0)
    write_config(tmp_path / "cloud.toml", world.config)
    write_config(tmp_path / "edge.toml", edge)
    assert CloudConfig.load(tmp_path / "cloud.toml") == world.config
    assert EdgeConfig.load(tmp_path / "edge.toml") == edge
