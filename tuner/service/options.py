"""Options and arguments that several commands have, and their allowed values."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

#: Exit code if the user interrupted the command, and exit code if the recommendation is provisional (based on
#: weak evidence).
INTERRUPTED, PROVISIONAL = 130, 4


class Format(StrEnum):
    """Formats in which commands print results."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class LogFormat(StrEnum):
    """Formats of progress and messages on stderr."""

    TEXT = "text"
    JSON = "json"


class MachineFormat(StrEnum):
    """Formats in which `paceline calibrate` prints its result."""

    TOML = "toml"
    TABLE = "table"
    JSON = "json"


class Sampler(StrEnum):
    """Methods that choose the next configuration to probe: Paceline's model, or a sampler of Optuna."""

    MODEL = "model"
    TPE = "tpe"
    GP = "gp"
    RANDOM = "random"


class SourceFormat(StrEnum):
    """Formats of past runs that `paceline import-runs` reads."""

    AUTO = "auto"
    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"
    CSV = "csv"


class LaunchTarget(StrEnum):
    """Tools for which `paceline export` writes launch files."""

    TORCHRUN = "torchrun"
    SLURM = "slurm"
    RAY = "ray"
    K8S = "k8s"
    SKYPILOT = "skypilot"
    ENV = "env"


JobPath = Annotated[Path, typer.Argument(help="The job file (TOML).", show_default=False)]
Tau = Annotated[int | None, typer.Option(help="Training steps from one exchange of parameters to the next.")]
Beta = Annotated[float | None, typer.Option(help="For elastic_averaging: moving rate times number of ranks.")]
OuterLearningRate = Annotated[
    float | None, typer.Option(help="For diloco: learning rate of the outer steps.")
]
OuterMomentum = Annotated[float | None, typer.Option(help="For diloco: momentum of the outer steps.")]
ReportTo = Annotated[
    str | None,
    typer.Option(
        help="Address of a server to which the training reports its real time to target.", show_default=False
    ),
]
StorageUrl = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="PACELINE_STORAGE",
        help="SQLAlchemy URL of the study database; SQLite next to the job file by default.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        envvar="PACELINE_OUTPUT",
        help="Folder for reports and probes; paceline-out/NAME by default.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Format, typer.Option("--format", "-f", envvar="PACELINE_FORMAT", help="Output format.")
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="PACELINE_LOG_FORMAT",
        help="Format of the progress on stderr; json prints one JSON object per line.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", envvar="PACELINE_QUIET", help="Print only warnings and the result."),
]
Explore = Annotated[
    bool,
    typer.Option(
        "--explore",
        help="After the answer, use the rest of the budget for probes that make predictions of other "
        "configurations more certain.",
    ),
]
