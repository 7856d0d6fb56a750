"""Settings of the server: what jobs may run, limits, and which jobs need approval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError
from pydantic_core import ErrorDetails

from tuner.domain.errors import JobError, did_you_mean
from tuner.domain.section import Section
from tuner.domain.toml_file import read_toml

#: Number of bytes in a MiB.
_MIB = 2**20
Names = tuple[str, ...]


class AllowSection(Section):
    """`[allow]`: what submitted jobs may run. All patterns are those of a shell: `*` and `?`."""

    workloads: Names = Field(
        default=("tuner.workloads.*",), description="import paths of Workloads, such as 'my_package.train:*'"
    )
    commands: Names = Field(
        default=(),
        description="commands, compared word by word; a last word '...' allows any further words, as in "
        "'torchrun --nproc-per-node {devices} train.py ...'",
    )
    resume: Names = Field(default=(), description="resume options of commands, compared in the same way")
    environment: Names = Field(
        default=("OMP_NUM_THREADS",), description="names of environment variables that jobs may set"
    )
    launchers: Names = Field(default=("local", "remote"), description="launchers that jobs may use")
    cluster: Names = Field(
        default=(),
        description="values of other keys of [cluster] that are not numbers, such as 'slurm.partition=gpu*' "
        "or 'python=/opt/venv/bin/python'",
    )
    images: Names = Field(default=(), description="container images that jobs may name")
    paths: Names = Field(
        default=(), description="paths outside of the workspace that jobs may name, such as '/data/*'"
    )
    workspace_code: bool = Field(
        default=False,
        description="whether jobs may bring their own code; by default, they may only bring data files",
    )


class LimitsSection(Section):
    """`[limits]`: sizes and rates of requests."""

    request_bytes: PositiveInt = Field(default=_MIB, description="size of a request, except for files")
    file_bytes: PositiveInt = Field(default=32 * _MIB, description="size of a file of a workspace")
    workspace_bytes: PositiveInt = Field(default=128 * _MIB, description="size of all files of a job")
    stored_bytes: PositiveInt = Field(
        default=4096 * _MIB,
        description="size of all files of a token: uploads, and reports and logs of its jobs; a token with a "
        "quota of its own has that instead",
    )
    uploads: PositiveInt = Field(default=4, description="files that a token may upload at the same time")
    upload_seconds: PositiveFloat = Field(default=120.0, description="time in which a file must arrive")
    configurations: PositiveInt = Field(
        default=20_000, description="configurations of a job, from which its plan is computed"
    )
    requests_per_minute: PositiveInt = Field(default=1200, description="requests of a token in a minute")
    refused_per_minute: PositiveInt = Field(
        default=60, description="requests without a valid token from an address in a minute"
    )
    least_dollars_per_node_hour: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="least price of a node that jobs must state, so that no job escapes [approval] and "
        "quotas by a low price; jobs that replay a recording need none",
    )
    most_priority: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=10,
        description="highest priority that tokens with the role submit may give their jobs; those with the "
        "role admin may give any",
    )
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="number of silent workers after which a job fails"
    )


class ApprovalSection(Section):
    """`[approval]`: jobs that may cost more wait until a token with the role admin approves them."""

    dollars: PositiveFloat | None = Field(default=None, description="dollars that need no approval")
    node_hours: PositiveFloat | None = Field(default=None, description="node hours that need no approval")


class ServerSettings(Section):
    """Content of the settings file of `paceline serve`."""

    allow: AllowSection = Field(default=AllowSection(), description="what submitted jobs may run")
    limits: LimitsSection = Field(default=LimitsSection(), description="sizes and rates of requests")
    approval: ApprovalSection = Field(default=ApprovalSection(), description="when jobs need approval")


def load_settings(path: Path | None) -> ServerSettings:
    """Reads a settings file (TOML); None gives the defaults.

    Raises:
        JobError: The file cannot be read or is not valid. The message names each faulty key.
    """
    if path is None:
        return ServerSettings()
    try:
        data = read_toml(path)
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}; give an existing file with --settings") from error
    try:
        return ServerSettings.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_words(problem) for problem in error.errors())
        raise JobError(f"{path}: {problems}. docs/guides/service.md lists all keys") from error


def _words(problem: ErrorDetails) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] != "extra_forbidden":
        return f"{key} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"
    section: Any = ServerSettings.model_fields[path[0]].annotation if len(path) > 1 else ServerSettings
    known = list(section.model_fields)
    return f"unknown key {key!r}{did_you_mean(path[-1], known)} Allowed there: {', '.join(known)}"
