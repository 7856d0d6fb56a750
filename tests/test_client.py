"""The client runs in environments that are not ours: it is tried in a process of its own."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = Path(__file__).resolve().parents[1] / "paceline_client.py"
OTHER_PYTHON = Path(sys.base_prefix) / "bin" / "python3"


def run(folder: Path, script: str, **environment: str) -> list[dict[str, object]]:
    """What a script wrote, run without anything of ours but the client."""
    shutil.copyfile(CLIENT, folder / "paceline_client.py")
    (folder / "script.py").write_text(script)
    subprocess.run(
        [str(OTHER_PYTHON), "-S", "script.py"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def probe(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PACELINE_METRICS": str(folder / "metrics.jsonl"),
        "PACELINE_STOP_FILE": str(folder / "stop"),
        **more,
    }


EVERYTHING = """
from paceline_client import *
begin()
report(step=1, samples=10)
report(step=1, samples=10, value=0.5, seconds=3)
gradient_noise(samples=10, small_batch=1, small_squared_norm=2, large_batch=4, large_squared_norm=1)
print(should_stop(), checkpoint_path(), values())
"""


def test_outside_of_a_probe_nothing_happens(tmp_path: Path) -> None:
    assert (
        run(tmp_path, EVERYTHING + "assert (should_stop(), checkpoint_path(), values()) == (False, None, {})")
        == []
    )


def test_every_word_is_a_line_with_time_and_process(tmp_path: Path) -> None:
    lines = run(tmp_path, EVERYTHING, **probe(tmp_path))
    assert [line.get("event", "progress") for line in lines] == [
        "begin",
        "progress",
        "progress",
        "noise",
        "asks",
    ]
    assert len({line.pop("process") for line in lines}) == 1
    times = [line.pop("time") for line in lines]
    assert times == sorted(times)
    assert lines[2] == {"step": 1, "samples": 10, "value": 0.5, "seconds": 3.0}


def test_other_ranks_write_only_if_asked(tmp_path: Path) -> None:
    reported = "from paceline_client import report\nreport(samples=1)\nreport(samples=2, on_every_rank=True)"
    lines = run(tmp_path, reported, **probe(tmp_path, RANK="1"))
    assert [line["samples"] for line in lines] == [2]


@pytest.mark.parametrize(
    ("environment", "stops_at"),
    [
        ({"PACELINE_UNTIL_SAMPLES": "25"}, 30),
        ({"PACELINE_UNTIL_STEPS": "2"}, 20),
        ({"PACELINE_UNTIL_SCORES": "2"}, 20),
        ({"PACELINE_UNTIL_SCORES": "2", "PACELINE_SCORED_SAMPLES": "30"}, 50),
        ({"PACELINE_UNTIL_SCORES": "3", "PACELINE_UNTIL_STEPS": "2"}, 20),
        ({"PACELINE_UNTIL_SCORES": "2", "PACELINE_PURPOSE": "timing"}, 90),
        ({"PACELINE_UNTIL_SAMPLES": "15", "SCORES": "no"}, 90),
        ({"PACELINE_UNTIL_SAMPLES": "15", "SCORES": "no", "PACELINE_PURPOSE": "timing"}, 20),
    ],
)
def test_a_slice_ends_where_it_was_asked_to(
    tmp_path: Path, environment: dict[str, str], stops_at: int
) -> None:
    lines = run(
        tmp_path,
        "import os\nfrom paceline_client import report, should_stop\n"
        "for step in range(1, 10):\n"
        "    value = None if os.environ.get('SCORES') == 'no' else 0.1\n"
        "    report(step=step, samples=10 * step, value=value)\n"
        "    if should_stop():\n        break\n",
        **probe(tmp_path, **environment),
    )
    assert lines[-1].get("samples") == stops_at


def test_scores_are_counted_by_position_and_only_numbers_are(tmp_path: Path) -> None:
    run(
        tmp_path,
        "from paceline_client import report, should_stop\n"
        "for samples, value in ((0, 0.1), (10, float('nan')), (20, 0.2), (20, 0.3)):\n"
        "    report(samples=samples, value=value)\n"
        "    assert not should_stop()\n"
        "report(samples=30, value=0.4)\n"
        "assert should_stop()\n",
        **probe(tmp_path, PACELINE_UNTIL_SCORES="2"),
    )


def test_the_stop_file_ends_a_slice_at_once(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    run(tmp_path, "from paceline_client import should_stop\nassert should_stop()", **probe(tmp_path))


def test_the_client_of_remote_trainers_imports_the_standard_library_alone() -> None:
    tree = ast.parse(CLIENT.with_name("paceline_remote.py").read_text(), feature_version=(3, 8))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_the_client_imports_the_standard_library_alone_and_reads_as_python_3_8() -> None:
    tree = ast.parse(CLIENT.read_text(), feature_version=(3, 8))
    top = {
        alias.name.partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert top <= set(sys.stdlib_module_names)
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert froms == {
        "__future__",
        "typing",
        "paceline_remote",
        "transformers",
        "lightning.pytorch.callbacks",
        "pytorch_lightning.callbacks",
    }
    assert "def _" in CLIENT.read_text()
