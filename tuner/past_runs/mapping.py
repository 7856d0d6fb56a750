"""The mapping file: for each quantity of a job, the name of its column or parameter in past runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from tuner.domain.errors import JobError
from tuner.domain.toml_file import read_toml


class Mapping(BaseModel):
    """The content of a mapping file: for each quantity of a job, a name in past runs or a value.

    A name is that of the column or parameter that contains the quantity. A value applies to all runs.

    All keys are optional. A missing key is guessed from the names of columns and parameters; if that fails,
    the user is asked for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    metric: str | None = Field(default=None, description="name of the column with the metric of the job")
    scale: PositiveFloat = Field(
        default=1.0,
        allow_inf_nan=False,
        description="factor by which the metric is multiplied, such as 0.01 for percent",
    )
    samples: str | None = Field(
        default=None, description="column with the number of samples processed so far"
    )
    step: str | None = Field(default=None, description="column with the number of optimizer steps so far")
    epoch: str | None = Field(default=None, description="column with the number of epochs so far")
    first_epoch: Literal[0, 1] | None = Field(
        default=None, description="number that the run gives its first epoch; found from the values if absent"
    )
    epoch_samples: PositiveInt | None = Field(
        default=None, description="number of samples per epoch, if the job does not state it"
    )
    seconds: str | None = Field(
        default=None, description="column with elapsed seconds, or with a timestamp in seconds"
    )
    batch_size: str | PositiveInt | tuple[str | PositiveInt, ...] | None = Field(
        default=None,
        description="parameter with the global batch size (of all devices together), or a number, or a list "
        'of parameters and numbers to be multiplied, such as ["per_device_train_batch_size", 4]',
    )
    learning_rate: str | PositiveFloat | None = Field(
        default=None, description="name of the parameter with the peak learning rate, or that rate"
    )
    nodes: str | PositiveInt = Field(
        default=1, description="name of the parameter with the number of nodes, or that number"
    )
    strategy: str = Field(
        default="all_reduce", description="name of a strategy, or name of the parameter that contains it"
    )
    tau: str | PositiveInt | None = Field(
        default=None,
        description="name of the parameter with the steps between two exchanges of weights, or that number",
    )
    beta: str | PositiveFloat | None = Field(
        default=None,
        description="only for elastic_averaging: name of the parameter with beta, or its value",
    )
    outer_learning_rate: str | PositiveFloat | None = Field(
        default=None,
        description="only for diloco: name of the parameter with the outer learning rate, or its value",
    )
    outer_momentum: str | float | None = Field(
        default=None,
        description="only for diloco: name of the parameter with the outer momentum, or its value",
    )
    run: str | None = Field(default=None, description="column of a CSV file with the name of the run")
    name_pattern: str | None = Field(
        default=None,
        description="regular expression that is searched in a run's path and name; its named groups are used "
        "as parameters",
    )
    same_hardware: bool = Field(
        default=False,
        description="whether the runs had the same hardware as the job, so their training times are used too",
    )

    @model_validator(mode="after")
    def _is_possible(self) -> Mapping:
        stated = [name for name in POSITIONS if getattr(self, name) is not None]
        if len(stated) > 1:
            raise ValueError(f"{' and '.join(stated)} are both stated; remove one")
        if self.name_pattern is not None:
            try:
                groups = re.compile(self.name_pattern).groupindex
            except re.error as error:
                raise ValueError(f"name_pattern is not a regular expression: {error}") from error
            if not groups:
                raise ValueError("name_pattern has no named group, such as (?P<batch_size>\\d+)")
        if isinstance(self.batch_size, tuple) and not self.batch_size:
            raise ValueError("batch_size is an empty list")
        return self

    @property
    def position(self) -> str | None:
        """The key for the training progress (`samples`, `step` or `epoch`); None if the mapping has none."""
        return next((name for name in POSITIONS if getattr(self, name) is not None), None)


#: Keys of the mapping for the columns with the training progress of a run, the most exact key first.
POSITIONS = ("samples", "step", "epoch")


def load_mapping(path: Path) -> Mapping:
    """Reads a mapping file.

    Raises:
        JobError: The file cannot be read or is not a valid mapping.
    """
    try:
        data = read_toml(path)
    except OSError as error:
        raise JobError(
            f"{path}: the mapping file cannot be read: {error.strerror}; name another one with --mapping"
        ) from error
    try:
        return Mapping.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise JobError("\n  ".join([f"{path}:", *_problems(error, data)])) from error


def _problems(error: ValidationError, data: Table[str, Any]) -> list[str]:
    """Returns one message for each unknown key and each key with an invalid value."""
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        key = str(problem["loc"][0]) if problem["loc"] else ""
        if not key:
            found[key] = str(problem["msg"]).removeprefix("Value error, ")
        elif key not in Mapping.model_fields:
            found[key] = f"{key} is not a key of a mapping; allowed are {', '.join(Mapping.model_fields)}"
        else:
            allowed = Mapping.model_fields[key].description
            found.setdefault(key, f"{key} = {str(data.get(key))[:60]!r} is not allowed: {allowed}")
    return list(found.values())


def mapping_text(values: Table[str, Any]) -> str:
    """Returns the text of a mapping file.

    Args:
        values: Maps each key to its value; None for a key that the user has to fill in.
    """
    lines = []
    for name, value in values.items():
        description = Mapping.model_fields[name].description
        stated = "" if value is None else json.dumps(list(value) if isinstance(value, tuple) else value)
        lines.append(f"{name} = {stated}  # {description}" if stated else f"# {name} = ...  # {description}")
    return "\n".join(lines)
