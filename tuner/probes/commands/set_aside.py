"""Move a probe's checkpoint and output aside, so that its run can start anew; nothing is deleted."""

from __future__ import annotations

from pathlib import Path

from tuner.probes.slice_plan import CHECKPOINTS_FOLDER

#: Where a run that started anew keeps what it had saved before, one folder for each time.
SET_ASIDE_FOLDER = "set_aside"
#: What the tuner itself writes next to the checkpoint.
_OWN_FILES = frozenset({"progress.json", "truncated"})
_TRUNCATED_FILE = "truncated"
#: Next to what was set aside: the run does not resume any more.
_OVER_FILE = "starts_over"


def set_aside(probe_folder: Path) -> None:
    """Moves what the script of a probe has saved into a folder of its own, if it saved anything.

    Raises:
        OSError: It cannot be moved.
    """
    checkpoints, output = probe_folder / CHECKPOINTS_FOLDER, probe_folder / "output"
    saved = [path for path in checkpoints.glob("*") if path.name not in _OWN_FILES]
    written = sorted(output.glob("*"))
    if not saved and not written:
        return
    place = probe_folder / SET_ASIDE_FOLDER
    place = place / f"{len(list(place.glob('[0-9]*'))) + 1:04d}"
    for paths, name in ((saved, CHECKPOINTS_FOLDER), (written, "output")):
        (place / name).mkdir(parents=True, exist_ok=True)
        for path in paths:
            path.rename(place / name / path.name)
    (checkpoints / _TRUNCATED_FILE).unlink(missing_ok=True)


def has_set_aside(probe_folder: Path) -> bool:
    """Whether a probe's run started anew before."""
    return (probe_folder / SET_ASIDE_FOLDER).exists()


def note_starts_over(probe_folder: Path) -> None:
    """Notes that a probe's run cannot resume: each slice of it starts over, also with another tuner."""
    path = probe_folder / SET_ASIDE_FOLDER / _OVER_FILE
    path.parent.mkdir(exist_ok=True)
    path.touch()


def starts_over(probe_folder: Path) -> bool:
    """Whether a probe's run was seen to be unable to resume."""
    return (probe_folder / SET_ASIDE_FOLDER / _OVER_FILE).exists()


def note_truncated(probe_folder: Path, *, is_truncated: bool) -> None:
    """Notes whether the script was killed because it took longer than its grace to save and end."""
    path = probe_folder / CHECKPOINTS_FOLDER / _TRUNCATED_FILE
    if is_truncated:
        path.touch()
    else:
        path.unlink(missing_ok=True)


def truncated_words(probe_folder: Path, grace_seconds: float) -> str:
    """What to say of a checkpoint that was cut short; empty if it was not.

    Args:
        probe_folder: The folder of the probe.
        grace_seconds: How long the script was given.
    """
    if not (probe_folder / CHECKPOINTS_FOLDER / _TRUNCATED_FILE).exists():
        return ""
    return f". Saving took longer than workload.grace = {grace_seconds:g} s: raise workload.grace"
