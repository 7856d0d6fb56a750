"""Scripts of the user's own that fail, refuse or end: each is named, and the search still answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.workplace import Ended, Workplace
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Outcome

#: Its accuracy follows from steps, batch size and learning rate; a hook may break it.
SCRIPT = """
import argparse, json, math, os, signal, sys, time
parser = argparse.ArgumentParser()
for name, kind in (("batch", int), ("lr", float), ("out", str), ("resume", str)):
    parser.add_argument("--" + name, type=kind)
a = parser.parse_args()
step, end = 0, 10**6
{before}
while step < end:
    time.sleep(0.004)
    step += 1
    if step % 20 == 0:
        print(f"step {step} acc={1 - math.exp(-step * a.batch * a.lr / 120):.5f}", flush=True)
    {within}
"""

JOB = """
name = "own"
[workload]
command = "{{python}} train.py --batch {{batch_size}} --lr {{learning_rate}} --out {{checkpoint}}"
one_per = "job"
{workload}
[workload.metrics]
source = "output"
pattern = 'step (?P<step>\\\\d+) acc=(?P<value>\\\\S+)'
[goal]
metric = "accuracy"
target = {target}
[space]
batch_size = {batches}
learning_rate = {rates}
[baseline]
batch_size = 16
learning_rate = 0.05
[budget]
time = "40s"
"""


def run(
    workplace: Workplace,
    paceline: Command,
    *,
    before: str = "",
    within: str = "",
    workload: str = "",
    target: float = 0.9,
    batches: str = "[8, 16]",
    rates: str = "[0.05, 0.1]",
) -> Ended:
    """Tunes the script with some lines of its own."""
    script = SCRIPT.replace("{before}", before).replace("{within}", within)
    (workplace.folder / "train.py").write_text(script)
    text = JOB.format(workload=workload, target=target, batches=batches, rates=rates)
    workplace.job.write_text(text.replace("\\\\", "\\"))
    return paceline("run", "job.toml")


def answer(workplace: Workplace) -> dict[str, Any]:
    path = workplace.folder / "paceline-out" / "own" / "recommendation.json"
    return dict(json.loads(path.read_text()))


def probes(workplace: Workplace) -> list[ProbeRecord]:
    return workplace.study()[1]


def remarks(workplace: Workplace) -> list[str]:
    return [remark for probe in probes(workplace) for m in probe.slices for remark in m.remarks]


@pytest.mark.slow
def test_a_configuration_that_fails_is_asked_once_and_the_others_answer(
    workplace: Workplace, paceline: Command
) -> None:
    fails = "if a.lr == 0.05 and step == 50: raise ValueError('the shard is broken')"
    ended = run(workplace, paceline, within=fails)
    assert ended.code == 0, ended.stderr
    failed = [p.configuration for p in probes(workplace) if p.outcome is Outcome.FAILED]
    assert failed
    assert len(failed) == len(set(failed))
    given = answer(workplace)
    assert given["choice"]["configuration"]["learning_rate"] == 0.1
    assert given["baseline"] is None
    assert any("Not recommended because they failed: " in words for words in given["warnings"])
    assert any("(ValueError: the shard is broken)" in words for words in given["warnings"])


@pytest.mark.parametrize(
    ("error", "num_probes"),
    [
        ("KeyError('the data')", 2),
        pytest.param("FileNotFoundError('the data')", 1, marks=pytest.mark.slow),
        pytest.param("KeyError(f'the data of {a.batch} at {a.lr}')", 3, marks=pytest.mark.slow),
    ],
)
def test_a_script_that_always_fails_is_tried_until_it_is_known_to_be_broken(
    workplace: Workplace, paceline: Command, error: str, num_probes: int
) -> None:
    ended = run(workplace, paceline, before=f"raise {error}", rates="[0.05, 0.1, 0.2]")
    assert ended.code == 5
    assert len({p.configuration for p in probes(workplace)}) == len(probes(workplace)) == num_probes
    assert f"{error.partition('(')[0]}: " in ended.stderr
    assert ("its command is broken" in ended.stderr) == (num_probes < 3)
    assert "report.html" in ended.messages[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "dies",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "raise RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED')",
    ],
)
def test_too_little_memory_leads_to_smaller_batches(
    workplace: Workplace, paceline: Command, dies: str
) -> None:
    ended = run(
        workplace, paceline, before=f"if a.batch >= 16: {dies}", batches="[4, 8, 16, 32]", rates="[0.2]"
    )
    assert ended.code == 0, ended.stderr
    first, *others = probes(workplace)
    assert (first.configuration.batch_size, first.outcome) == (16, Outcome.OUT_OF_MEMORY)
    assert {p.configuration.batch_size for p in others} <= {4, 8}
    given = answer(workplace)
    for name in ("choice", "runner_up"):
        assert given[name] is None or given[name]["configuration"]["batch_size"] <= 8
    assert given["baseline"] is None


RESUMES = """
if a.resume:
    step = json.load(open(a.resume))["step"]
def save(*_):
    json.dump({"step": step}, open(a.out, "w"))
    sys.exit()
signal.signal(signal.SIGTERM, save)
"""


ONE = {"rates": "[0.05]", "batches": "[16]", "workload": 'resume = "--resume {checkpoint}"'}


@pytest.mark.slow
def test_a_script_that_refuses_to_resume_starts_over(workplace: Workplace, paceline: Command) -> None:
    refuses = "if a.resume: sys.exit('error: the run already exists')" + RESUMES
    ended = run(workplace, paceline, before=refuses, **ONE)
    assert ended.code == 0, ended.stderr
    (remark,) = remarks(workplace)
    assert remark == (
        "the script refused to resume (error: the run already exists): "
        "its run restarted from scratch, and later slices start over, too"
    )
    assert not any(p.outcome.is_fault for p in probes(workplace))


#: The first checkpoint of the study is cut short.
SPOILS = """
    text = json.dumps({"step": step})
    open(a.out, "w").write(text if os.path.exists("once") else text[:3])
    open("once", "w").close()
"""


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_is_moved_aside(workplace: Workplace, paceline: Command) -> None:
    spoils = RESUMES.replace('    json.dump({"step": step}, open(a.out, "w"))\n', SPOILS)
    assert spoils != RESUMES
    ended = run(workplace, paceline, before=spoils, **ONE)
    assert ended.code == 0, ended.stderr
    (remark,) = remarks(workplace)
    assert remark.startswith("its checkpoint could not be read (json.decoder.JSONDecodeError: ")
    (aside,) = workplace.folder.glob("paceline-out/own/probes/*/0001/set_aside/0001/checkpoints/checkpoint")
    assert aside.read_text() == '{"s'
    (probe,) = probes(workplace)
    assert probe.outcome is Outcome.REACHED
    assert probe.measurement is not None
    assert probe.measurement.repeated_seconds > 0


@pytest.mark.slow
def test_a_script_that_ends_before_the_target_needs_more_epochs(
    workplace: Workplace, paceline: Command
) -> None:
    ended = run(workplace, paceline, before="end = 130", target=0.999)
    assert ended.code == 3
    (answer,) = [line for line in ended.stderr.splitlines() if line.startswith("paceline: ")]
    assert "the script ended after" in answer
    assert "let the script train for more epochs" in answer
    end = "before it reached the target: let it train for more epochs"
    assert any(remark.endswith(end) for remark in remarks(workplace))
