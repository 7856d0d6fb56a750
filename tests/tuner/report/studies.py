"""Makes the reports of six real studies, each with the command line as a user calls it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cli.workplace import PACELINE
from tests.recorded_grid import write_job

EXAMPLES = Path(__file__).parents[3] / "examples"
BASELINE = """
[baseline]
nodes = 1
machine = "small"
batch_size = 32
learning_rate = 0.03
"""


@dataclass(frozen=True, kw_only=True)
class Study:
    """How a study is made, and how it ends.

    Args:
        code: Exit code of `paceline run`.
        words: Words of its report.
    """

    code: int
    words: tuple[str, ...]


STUDIES = {
    "finished": Study(code=0, words=("verified", "sooner by prediction", "present settings")),
    "provisional": Study(code=0, words=("provisional", "The budget ended the search early")),
    "out of reach": Study(code=3, words=("Nothing is recommended", "target", "What to change")),
    "failed": Study(code=5, words=("Nothing is recommended", "cannot open <the images> & labels")),
    "own script": Study(code=0, words=("Your own command with these values", "numpy_script.py")),
    "128 nodes": Study(code=0, words=("128", "gossip_pull", "Strategies")),
}


def make_report(name: str, folder: Path) -> Path:
    """Runs the study of a name in a folder; returns the path of its `report.html`."""
    job = _written_job(name, folder)
    run = [PACELINE, "run", job.name, "--output", "out"]
    ended = subprocess.run(
        run, cwd=folder, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert ended.returncode == STUDIES[name].code, ended.stderr
    return folder / "out" / "report.html"


def _written_job(name: str, folder: Path) -> Path:
    if name in ("finished", "provisional"):
        changes = [] if name == "finished" else [('time = "10m"', 'time = "24s"')]
        job = write_job(folder, *changes)
        job.write_text(job.read_text() + BASELINE)
        return job
    job = folder / "job.toml"
    if name == "128 nodes":
        # A near target, so that the search ends soon on a busy machine, too.
        near = (("target = 0.95", "target = 0.72"), ('time = "8m"', 'time = "60s"'))
        job.write_text(_changed("cluster_of_128.toml", *near))
        return job
    script = (EXAMPLES / "numpy_script.py").read_text()
    if name == "failed":
        script = 'raise SystemExit("cannot open <the images> & labels")\n'
    (folder / "numpy_script.py").write_text(script)
    changes = [('time = "90s"', 'time = "20s"')]
    if name == "out of reach":
        changes.append(("target = 0.93", "target = 0.999"))
    job.write_text(_changed("numpy_script.toml", *changes))
    return job


def _changed(example: str, *changes: tuple[str, str]) -> str:
    text = (EXAMPLES / example).read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text
