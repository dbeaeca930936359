"""The stage of faults of processes: its nodes are configured by files, as any."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from cloud_node.config import CloudConfig
from edge_node import EdgeConfig
from ops.chaos.stage import Staged, write_config

if TYPE_CHECKING:
    from ops.chaos.world import TinyWorld


def test_what_is_written_of_a_nodes_configuration_is_loaded_as_it(world: "TinyWorld", tmp_path: Path) -> None:
    edge = world.edge(world.address, 2.0)
    write_config(tmp_path / "cloud.toml", world.config)
    write_config(tmp_path / "edge.toml", edge)
    assert CloudConfig.load(tmp_path / "cloud.toml") == world.config
    assert EdgeConfig.load(tmp_path / "edge.toml") == edge


def test_the_truth_is_made_with_as_many_threads_as_a_replica_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Staged, "start_cloud", lambda stage: None)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Staged(tmp_path).__enter__()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
