"""Base class of the tables of a job file (such as `[goal]`), and types for durations in these tables."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)?\s*")
_SECONDS = {None: 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: Any) -> Any:
    """Converts text such as `90s`, `10m`, `1h30m` or `50us` to seconds; returns other values unchanged.

    Raises:
        ValueError: The text is not a duration.
    """
    if not isinstance(value, str):
        return value
    total, position = 0.0, 0
    while position < len(value):
        match = _DURATION.match(value, position)
        if match is None or match.end() == position:
            raise ValueError(
                f"{value!r} is not a duration; write 90s, 10m, 2h, 1h30m, 50us or a number of seconds"
            )
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    return total


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
DurationOrZero = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]

#: A number of nodes. Paceline makes lists and tables of this size.
NodeCount = Annotated[int, Field(gt=0, le=100_000)]
#: A number of devices or CPU threads.
DeviceCount = Annotated[int, Field(gt=0, le=1_024)]
#: A global batch size. Paceline makes lists of the samples of a batch.
BatchSize = Annotated[int, Field(gt=0, le=100_000_000)]
#: A number that Paceline counts up to, such as a number of steps.
Count = Annotated[int, Field(gt=0, le=1_000_000_000)]


class Section(BaseModel):
    """Base class of a table of the job file, such as `[goal]`; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
