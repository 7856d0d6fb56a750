"""The examples of docs/extending.md, applied to a copy of the code and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```python ([^\n]+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))

PRICE = """
import numpy as np
from search_spaces import STRATEGIES, Configuration, with_knobs
from tuner.analytic.step_time_laws import Network
from tuner.analytic.step_time_model import fit_seconds
from tuner.analytic.strategy_encoding import setup_of
from tuner.analytic.strategy_laws import batch_seconds, disagreement, disagreement_parameters
from tuner.domain.cluster import Cluster

what = with_knobs(Configuration(nodes=8, batch_size=64, learning_rate=0.1, strategy="momentum_averaging"))
traits, ranks = STRATEGIES[what.strategy], np.array([8.0])
network = Network(num_bytes=1e6, latency=1e-3, bytes_per_second=1e8)
found = batch_seconds(traits, np.array([0.02]), ranks, np.array([float(what["tau"])]), network)
assert abs(found[0] - (0.02 + 2 * 3 * (1e-3 + 1e-2) / 8)) < 1e-12, found
model = fit_seconds([], Cluster(node_counts=(1, 8)), 1_000_000, strategies=[what.strategy])
mean, _ = model.log_seconds_per_sample([what, what.replaced(strategy="all_reduce").without("tau")])
assert np.isfinite(mean).all() and mean[0] != mean[1]
own, plain = (
    disagreement(setup_of(with_knobs(what.replaced(strategy=name).without("tau")), 8))
    for name in ("momentum_averaging", "local_sgd")
)
assert own == 2 * plain > 0, (own, plain)
costs = [parameter.name for parameter in disagreement_parameters(["momentum_averaging"]).values()]
assert costs == ["log sample cost (averaging with momentum)"], costs
"""

EMULATE = """
import torch
from tests.tuner.emulation.toy import emulated, scored_parameters

whole, first, second = (emulated("momentum_averaging", 2, tau=4) for _ in range(3))
first.run(samples=200)
second.load(first.state())
for run in (whole, second):
    run.run(samples=600)
torch.testing.assert_close(scored_parameters(second), scored_parameters(whole))
averaged = emulated("local_sgd", 2, tau=4)
averaged.run(samples=600)
assert not torch.equal(scored_parameters(averaged), scored_parameters(whole))
"""

LAUNCH = """
import time
from pathlib import Path
from tuner.job import ClusterSection
from tuner.launchers import CommandTask, JobState
from tuner.launchers.registry import ClusterSettings, launcher_entry

section = ClusterSection.model_validate({"launcher": "nice", "nice": {"increment": 7}}).launcher_section
settings = ClusterSettings(devices_per_node=1, threads_per_rank=1, python=None, runs_command=True)
with launcher_entry("nice").create(section, settings) as launcher:
    task = CommandTask(command="nice", working_folder=Path.cwd(), folder=Path.cwd())
    handle = launcher.submit_command(task, num_nodes=2, devices_per_node=1)
    while not (status := launcher.poll(handle)).state.has_ended:
        time.sleep(0.05)
    assert status.state is JobState.SUCCEEDED, status
    print(*launcher.logs(handle).values())
"""

CONFORM = """
import pytest
from tests.tuner.launchers.command_conformance import CommandConformance
from tuner.launchers import CommandLauncher
from tuner.launchers.nice_nodes import NiceNodes


@pytest.fixture
def work(tmp_path):
    return tmp_path


class TestNiceNodes(CommandConformance):
    @pytest.fixture
    def launcher(self):
        with self.another_launcher() as launcher:
            yield launcher

    def another_launcher(self):
        return CommandLauncher(NiceNodes(3))
"""

READ = """
from pathlib import Path
from tuner.job import MetricsSection, job_schema
from tuner.probes.commands.metric_source import SourceContext, open_source

assert "key_value" in str(job_schema())
log = Path("log.txt")
log.write_text("step=1 accuracy=0.1 of an earlier run\\n")
source = open_source(
    SourceContext(
        metrics=MetricsSection(source="key_value", path="log.txt", value="accuracy"),
        metrics_file=Path("metrics.jsonl"),
        path_of=Path,
        log_files=dict,
    )
)
with log.open("a") as file:
    file.write("step=100 accuracy=0.93\\nstep=x accuracy=0.94\\nloss=0.2 step=200\\nstep=300")
lines = source.read(1.0, has_ended=False)
assert [(line.step, line.value) for line in lines] == [(100.0, 0.93), (200.0, None)], lines
assert [line.step for line in source.read(2.0, has_ended=True)] == [300.0]
assert len(source.warnings) == 1 and source.unmatched == {"loss": "loss = 0.2"}
assert "log.txt" in source.place
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with the new files, and with each line of registration where the page says."""
    folder = tmp_path_factory.mktemp("extended")
    for package in ("search_spaces", "tuner"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "tuner/strategies/momentum_averaging.py",
        "tuner/analytic/tree_averaging.py",
        "tuner/analytic/momentum_samples.py",
        "tuner/launchers/nice_nodes.py",
        "tuner/probes/commands/key_value_source.py",
    ):
        (folder / name).write_text(BLOCKS[name])
    traits = "search_spaces/strategy_traits.py"
    insert(folder / traits, "    # New strategies go here.", BLOCKS[traits].strip() + ",")
    laws = folder / "tuner/analytic/strategy_laws.py"
    for module, name, kind in (
        ("tree_averaging", "tree_averaging", "step time"),
        ("momentum_samples", "momentum_averaging", "samples"),
    ):
        imported, line = (
            re.findall(f"`({pattern})`", PAGE)[0]
            for pattern in (rf"from tuner\.analytic\.{module} import \w+", rf'"{name}": \w+')
        )
        insert(laws, f"    # New laws of {kind} go here.", line + ",")
        insert(laws, "import math", imported)
    launchers = "tuner/launchers/registry.py"
    insert(folder / launchers, "    # New launchers go here.", BLOCKS[launchers].strip())
    sources = "tuner/job/command_section.py"
    insert(folder / sources, "    # New metric sources go here.", BLOCKS[sources].rstrip())
    return folder


def insert(path: Path, place: str, line: str) -> None:
    text = path.read_text()
    assert text.count(place + "\n") == 1
    path.write_text(text.replace(place + "\n", f"{line}\n{place}\n"))


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_new_law_prices_the_new_strategy(extended: Path) -> None:
    run(extended, "-c", PRICE)


@pytest.mark.slow
def test_the_new_strategy_is_emulated_and_resumes(extended: Path) -> None:
    run(extended, "-c", EMULATE)


def test_the_new_launcher_runs_a_command_as_its_section_says(extended: Path) -> None:
    niceness = os.nice(0)
    assert run(extended, "-c", LAUNCH).split() == [str(min(niceness + 7, 19))] * 2


def test_the_new_metric_source_reads_what_a_script_reports(extended: Path) -> None:
    run(extended, "-c", READ)


@pytest.mark.slow
def test_the_new_launcher_does_what_every_launcher_must(extended: Path) -> None:
    shutil.copytree(ROOT / "tests", extended / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", extended)
    (extended / "tests/test_nice_nodes.py").write_text(CONFORM)
    run(extended, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/test_nice_nodes.py")


@pytest.mark.slow
def test_two_ranks_train_by_the_new_strategy(extended: Path) -> None:
    job = (ROOT / "examples" / "digits.toml").read_text()
    (extended / "digits.toml").write_text(job.replace("target = 0.95", "target = 0.8"))
    shown = run(
        extended,
        *("-c", "import cli; cli.main()", "train", "digits.toml", "--nodes", "2"),
        *("--batch-size", "32", "--learning-rate", "0.1", "--strategy", "momentum_averaging", "--tau", "4"),
    )
    assert re.search(r"samples to target +\d+", shown)
