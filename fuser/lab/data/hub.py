"""Rows of a Hugging Face data set, by name: `hf:OWNER/NAME[/CONFIG][:SPLIT]`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from fuser.lab.data.rows import DataRow

PREFIX = "hf:"
_NAME_PARTS = 2  # owner and name; a third part is the config


class DatasetUnavailable(ValueError):
    """A data set cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class HubName:
    """A data set, its config (`*` is every config, whose names become the subjects) and its split; None: not said."""

    name: str
    config: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, source: str) -> HubName:
        """Read `hf:OWNER/NAME[/CONFIG][:SPLIT]`; a name without an owner has no config."""
        path, _, split = source.removeprefix(PREFIX).partition(":")
        parts = path.split("/", _NAME_PARTS)
        if not all(parts):
            raise DatasetUnavailable(f"{source}: expected hf:OWNER/NAME[/CONFIG][:SPLIT]")
        config = parts[_NAME_PARTS] if len(parts) > _NAME_PARTS else None
        return cls("/".join(parts[:_NAME_PARTS]), config, split or None)


def hub_rows(wanted: HubName, splits: tuple[str, ...]) -> Iterator[DataRow]:
    """Rows of a data set in their order.

    Args:
        splits: the first of these that the data set has is read where `wanted` names none.

    Raises:
        DatasetUnavailable: `datasets` is not installed, the data set cannot be read, or a config or split is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise DatasetUnavailable("reading hf: names needs `pip install 'kvwire[train]'`") from error
    try:
        configs = list(datasets.get_dataset_config_names(wanted.name))
        if wanted.config == "*":
            for config in configs:
                yield from _one(datasets, replace(wanted, config=config), splits, subject=config)
            return
        if wanted.config is None and len(configs) > 1:
            shown = ", ".join(configs[:8]) + (", ..." if len(configs) > 8 else "")
            raise DatasetUnavailable(
                f"{PREFIX}{wanted.name} has {len(configs)} configs ({shown}); "
                f"name one as {PREFIX}{wanted.name}/CONFIG, or take all with {PREFIX}{wanted.name}/*"
            )
        yield from _one(datasets, wanted, splits, subject=None)
    except DatasetUnavailable:
        raise
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DatasetUnavailable(
            f"{PREFIX}{wanted.name}: {error}; export it to JSON lines and pass the file"
        ) from error


def _one(datasets: Any, wanted: HubName, splits: tuple[str, ...], subject: str | None) -> Iterator[DataRow]:
    there = datasets.get_dataset_split_names(wanted.name, wanted.config)
    asked = (wanted.split,) if wanted.split else splits
    split = next((name for name in asked if name in there), None)
    if split is None:
        raise DatasetUnavailable(
            f"{PREFIX}{wanted.name}: no split {' or '.join(asked)}; it has {', '.join(there)}"
        )
    where = f"{PREFIX}{wanted.name}{f'/{wanted.config}' if wanted.config else ''}:{split}"
    for number, fields in enumerate(datasets.load_dataset(wanted.name, wanted.config, split=split), 1):
        if subject is not None:
            own = fields.get("id")
            fields = {"subject": subject} | fields | {"id": f"{subject}-{number if own is None else own}"}
        yield DataRow(fields, f"{where} row {number}", number)
