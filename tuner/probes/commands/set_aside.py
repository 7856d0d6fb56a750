"""Moves the checkpoint and output of a probe into another folder, so the run can start from scratch."""

from __future__ import annotations

from pathlib import Path

from tuner.probes.slice_plan import CHECKPOINTS_FOLDER, OWN_FILES

#: Folder for the files that a run had saved before it restarted from scratch, with a subfolder per restart.
SET_ASIDE_FOLDER = "set_aside"
_TRUNCATED_FILE = "truncated"
#: Name of the empty file that is created for a run which cannot resume.
_OVER_FILE = "starts_over"


def set_aside(probe_folder: Path) -> None:
    """Moves the files that the script of a probe has saved into a new folder; nothing is deleted.

    Args:
        probe_folder: Folder of the probe, which contains its checkpoint and output.

    Raises:
        OSError: The files cannot be moved.
    """
    checkpoints, output = probe_folder / CHECKPOINTS_FOLDER, probe_folder / "output"
    saved = [path for path in checkpoints.glob("*") if path.name not in OWN_FILES]
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
    """Whether `set_aside` has moved files of the probe before, so its run has restarted from scratch."""
    return (probe_folder / SET_ASIDE_FOLDER).exists()


def note_starts_over(probe_folder: Path) -> None:
    """Stores that the run of a probe cannot resume, so each later slice has to start from scratch."""
    path = probe_folder / SET_ASIDE_FOLDER / _OVER_FILE
    path.parent.mkdir(exist_ok=True)
    path.touch()


def starts_over(probe_folder: Path) -> bool:
    """Whether `note_starts_over` has stored that the run of a probe cannot resume."""
    return (probe_folder / SET_ASIDE_FOLDER / _OVER_FILE).exists()


def note_truncated(probe_folder: Path, *, is_truncated: bool) -> None:
    """Stores whether the last slice of a probe was killed while it saved its checkpoint.

    Args:
        probe_folder: Folder of the probe.
        is_truncated: Whether the script was killed, since it needed longer than `workload.grace` to save.
    """
    path = probe_folder / CHECKPOINTS_FOLDER / _TRUNCATED_FILE
    if is_truncated:
        path.touch()
    else:
        path.unlink(missing_ok=True)


def truncated_words(probe_folder: Path, grace_seconds: float) -> str:
    """Returns advice for the end of an error message if the script was killed while it saved its checkpoint.

    Args:
        probe_folder: Folder of the probe.
        grace_seconds: The value of `workload.grace`, for the message.

    Returns:
        The advice; empty if the script was not killed.
    """
    if not (probe_folder / CHECKPOINTS_FOLDER / _TRUNCATED_FILE).exists():
        return ""
    return f". Saving took longer than workload.grace = {grace_seconds:g} s: raise workload.grace"
