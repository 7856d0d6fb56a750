"""How to train a recommended configuration: its command or values, and the model that the search trained."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from search_spaces import Configuration
from tuner.domain.recommendation import train_command
from tuner.job import Job, stated_values, user_command
from tuner.probes.slice_plan import MODEL_FILE
from tuner.search.runs import Run
from tuner.search.state import SearchState


def trains_here(state: SearchState, choice: Configuration) -> bool:
    """Whether the training of a configuration is real: no rank is emulated, no recording is replayed."""
    return state.job.recording() is None and not state.cluster.emulates(choice)


def command_of(state: SearchState, choice: Configuration, job_path: Path) -> str:
    """Returns the `paceline train` command of a configuration; empty if Paceline cannot start it."""
    if not trains_here(state, choice) or state.job.is_remote:
        return ""
    return train_command(job_path, choice)


def own_command_of(job: Job, choice: Configuration, job_path: Path, num_samples: int | None) -> str:
    """Returns the user's own command with the values of a configuration; empty if no command is started."""
    if not job.runs_command or job.is_remote:
        return ""
    return user_command(job, job_path.resolve().parent, choice, num_samples=num_samples)


def trainer_values(job: Job, choice: Configuration) -> dict[str, float | int | str]:
    """Returns the values that a remote trainer gets for a configuration; empty if trainers are not remote."""
    if not job.is_remote:
        return {}
    stated = cast("dict[str, float | int | str]", stated_values(job, choice))
    return {name: value for name, value in stated.items() if name != "python"}


def model_of(state: SearchState, run: Run | None) -> str | None:
    """Returns the path of the model that the search trained to the target.

    It is None if no run reached the target, or if ranks were emulated or a recording was replayed. For a
    remote trainer, it is the name that the trainer gave its checkpoint, which is the content of the file.
    """
    if run is None or not run.arrived or not trains_here(state, run.configuration):
        return None
    path = trained_model(run)
    if path is None or not state.job.is_remote:
        return path
    try:
        return Path(path).read_text().strip() or None
    except (OSError, ValueError):
        return None  # the file is on the host of another worker


def trained_model(run: Run) -> str | None:
    """Returns the path of the trained model (its state dictionary) that a run stored at the target.

    If there is no such file, it returns the path of the run's last checkpoint, or None without a checkpoint.

    Args:
        run: The run.
    """
    checkpoint = run.measurement.checkpoint
    if checkpoint is None:
        return None
    model = Path(checkpoint).parent.parent / MODEL_FILE
    return str(model) if run.arrived and model.is_file() else checkpoint
