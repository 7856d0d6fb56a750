"""YAML as people write it: keys in the order given, a text of several lines as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


class _Lines(str):
    """A text of several lines; a type of its own, so that PyYAML's dumper stays as it is for all others."""


def _block(dumper: Any, text: _Lines) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")


yaml.add_representer(_Lines, _block, Dumper=yaml.SafeDumper)


def yaml_text(data: Mapping[str, Any]) -> str:
    """The data as YAML."""
    text: str = yaml.safe_dump(_with_blocks(data), sort_keys=False, allow_unicode=True, width=1_000_000)
    return text


def _with_blocks(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _with_blocks(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_with_blocks(item) for item in data]
    return _Lines(data) if isinstance(data, str) and "\n" in data else data
