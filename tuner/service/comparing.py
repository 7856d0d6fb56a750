"""The use case `compare`: compares two configurations of a study, or two studies, without training."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from search_spaces import AxisValue, Configuration
from tuner.advice.comparison import Case, Comparison, compare
from tuner.domain.errors import JobError, did_you_mean
from tuner.domain.ledger import Ledger, StudyRecord
from tuner.domain.recommendation import train_command
from tuner.job import Job
from tuner.service.opening import OpenedJob, StudyStore, open_job
from tuner.service.predicting import BASELINE, RECOMMENDED, StudyForecasts, chosen
from tuner.service.views import require_study


@dataclass(frozen=True, kw_only=True)
class AskedConfiguration:
    """A configuration as the user describes it: a known one, with some values changed.

    Args:
        base: `recommended` or `baseline`.
        values: The values that differ from it.
    """

    base: str = RECOMMENDED
    values: Mapping[str, AxisValue]


def compare_configurations(
    opened: OpenedJob, store: StudyStore, first: AskedConfiguration, second: AskedConfiguration
) -> tuple[Comparison, str]:
    """Compares two configurations by the newest study of a job.

    Args:
        opened: The job.
        store: The database of studies.
        first: Configuration A.
        second: Configuration B.

    Returns:
        The comparison, and the next sensible command.

    Raises:
        JobError: The job has no study, a configuration is impossible, or both are the same.
        InfeasibleError: No score was read in the study.
        ProbeError: No score was read, because probes failed.
    """
    forecasts = StudyForecasts(opened, store.ledger, require_study(store.ledger, opened))
    a, b = (_configuration(forecasts, asked) for asked in (first, second))
    if a == b:
        raise JobError(f"{opened.path}: A and B are the same configuration, {a}; change one of them")
    ending = forecasts.ending([a, b])
    found = compare(
        Case(label="A", ending=ending, configuration=a), Case(label="B", ending=ending, configuration=b)
    )
    better = found.sides[found.better].forecast.configuration
    state = forecasts.state
    if state.job.recording() is not None or state.cluster.emulates(better):
        path = shlex.quote(str(opened.path))
        return found, f"paceline {'report' if forecasts.has_ended else 'run'} {path}"
    return found, train_command(opened.path, better)


def _configuration(forecasts: StudyForecasts, asked: AskedConfiguration) -> Configuration:
    base = forecasts.recommended() if asked.base == RECOMMENDED else forecasts.baseline
    if base is None:
        raise JobError(
            f"{forecasts.opened.path}: the job has no [{BASELINE}]; add it, or state the values of the "
            "configuration"
        )
    return chosen(forecasts, asked.values, base)


def compare_studies(store: StudyStore, first: str, second: str) -> tuple[Comparison, str]:
    """Compares the recommended configurations of two studies.

    Args:
        store: The database of both studies.
        first: Number or name of study A, or the path of a job file, which stands for its newest study.
        second: The same for study B.

    Returns:
        The comparison, and the next sensible command.

    Raises:
        JobError: A study is unknown, or both are the same.
        InfeasibleError: No score was read in a study.
        ProbeError: No score was read, because probes failed.
    """
    found = [_forecasts(store.ledger, text) for text in (first, second)]
    if found[0].study.study_id == found[1].study.study_id:
        raise JobError(
            f"{first} and {second} are the same study, {found[0].study.name}; to compare two of its "
            "configurations, use --a and --b"
        )
    cases = []
    for label, forecasts in zip("AB", found, strict=True):
        configuration = forecasts.recommended()
        ending = forecasts.ending([configuration])
        cases.append(Case(label=label, ending=ending, configuration=configuration))
    compared = compare(*cases)
    better = found[int(compared.probabilities[1] > compared.probabilities[0])]
    return compared, f"paceline report {shlex.quote(str(better.opened.path))}"


def _forecasts(ledger: Ledger, text: str) -> StudyForecasts:
    if text.endswith(".toml"):
        opened = open_job(Path(text))
        return StudyForecasts(opened, ledger, require_study(ledger, opened))
    studies = {study.name: study for study in ledger.studies()}
    numbers = {str(study.study_id): study for study in studies.values()}
    study = studies.get(text) or numbers.get(text)
    if study is None:
        known = ", ".join(f"{one.name} ({number})" for number, one in numbers.items()) or "none"
        raise JobError(
            f"there is no study {text!r} in this database{did_you_mean(text, studies)} Known are {known}"
        )
    return StudyForecasts(_opened(study), ledger, study)


def _opened(study: StudyRecord) -> OpenedJob:
    """Returns the job of a stored study, without its job file."""
    try:
        job = Job.model_validate(dict(study.job))
    except ValidationError as error:
        raise JobError(
            f"the job of study {study.name} cannot be read by this version: {error.errors()[0]['msg']}; give "
            "the path of its job file instead"
        ) from error
    return OpenedJob(job=job, path=Path(f"{study.job_name}.toml"), fingerprint=study.fingerprint)
