from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.tuner.probes.commands.bench import CONFIGURATION, PYTHON, Bench, job_of, values
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.probes import Until
from tuner.probes.commands.buffered_lines import spread_block
from tuner.probes.commands.progress_line import ScriptLine

#: Saves to a folder that all runs share, and resumes from it by itself.
SHARED = """
import json, os, sys, time
step = json.load(open("last.json")) if os.path.exists("last.json") else 0
while step < 1000:
    time.sleep(0.01)
    step += 1
    if step % 5 == 0:
        print(f"step {step} acc={step / 2000}", flush=True)
        json.dump(step, open("new.json", "w"))
        os.replace("new.json", "last.json")
"""
OUTPUT = {"metrics": {"source": "output", "pattern": r"step (?P<step>\d+) acc=(?P<value>\S+)"}}


def test_a_run_that_goes_on_from_another_one_s_state_is_stopped_with_the_reason(bench: Bench) -> None:
    bench.write("shared.py", SHARED)
    job = job_of(f"{PYTHON} shared.py {{batch_size}}", **OUTPUT)
    first = bench.slice(job, Until(samples=800))
    assert first.outcome is Outcome.PAUSED, first.error
    second = bench.slice(job, Until(samples=800), probe="other")
    assert second.outcome is Outcome.FAILED
    assert "seems to resume by itself from a folder that all runs share" in second.error
    assert "{output_folder}" in second.error


def test_a_new_run_that_says_it_begins_further_on_is_stopped(bench: Bench) -> None:
    bench.write(
        "further.py",
        "import time\nfrom paceline_client import begin, report\nbegin(step=50, samples=500)\n"
        "report(step=51, samples=510, value=0.5)\ntime.sleep(60)\n",
    )
    seen = bench.slice(job_of(f"{PYTHON} further.py {{batch_size}}"), Until(samples=100))
    assert seen.outcome is Outcome.FAILED
    assert "its first report is after 500 samples" in seen.error


@pytest.mark.parametrize("says", [True, False])
def test_a_first_score_that_is_where_another_run_ended_is_noticed(bench: Bench, says: bool) -> None:
    # Its steps count from 0 in each run, but its weights come from a folder that all runs share.
    words = "print('loaded weights from checkpoint last.json')" if says else "pass"
    bench.write(
        "weights.py",
        "import json, os, time\n"
        "seen = json.load(open('last.json')) if os.path.exists('last.json') else 0\n"
        f"if seen: {words}\n"
        "for step in range(1, 200):\n"
        "    time.sleep(0.02)\n"
        "    seen += 1\n"
        "    json.dump(seen, open('new.json', 'w'))\n"
        "    os.replace('new.json', 'last.json')\n"
        "    if step % 2 == 0: print(f'step {step} acc={0.9 * seen / (seen + 10):.4f}', flush=True)\n",
    )
    job = job_of(f"{PYTHON} weights.py {{batch_size}}", **OUTPUT)
    bench.slice(job, Until(samples=300))
    second = bench.slice(job, Until(samples=300), probe="other")
    said = [second.error or ""] if says else list(second.remarks)
    assert any("is close to the last score of the run before it" in words for words in said), second
    assert (second.outcome is Outcome.FAILED) == second.job_fault == says


def test_another_batch_than_asked_for_is_named(bench: Bench) -> None:
    bench.write(
        "halves.py",
        "from paceline_client import report\nfor step in range(1, 8):\n"
        "    report(step=step, samples=5 * step, value=0.1 * step)\n",
    )
    seen = bench.slice(job_of(f"{PYTHON} halves.py {{batch_size}}"), Until(samples=30))
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert any("reports 5 samples per step, but batch_size = 10" in words for words in seen.remarks)


def test_a_batch_beyond_an_epoch_is_named(bench: Bench) -> None:
    bench.write("few.py", "from paceline_client import report\nreport(step=1, samples=10, value=0.1)\n")
    seen = bench.slice(job_of(f"{PYTHON} few.py {{batch_size}}", epoch_samples=8), Until(samples=10))
    assert any("larger than an epoch of 8 samples" in words for words in seen.remarks)


@pytest.mark.parametrize("path", ["{output_folder}/version_*/log.csv", "{output_folder}/version_0/log.csv"])
def test_a_file_that_moves_at_each_start_is_followed(bench: Bench, path: str) -> None:
    bench.write(
        "numbered.py",
        """
import os, sys, time
out = sys.argv[1]
number = next(n for n in range(9) if not os.path.exists(f"{out}/version_{n}"))
os.makedirs(f"{out}/version_{number}")
step = int(open(sys.argv[3]).read()) if len(sys.argv) > 3 else 0
with open(f"{out}/version_{number}/log.csv", "w", buffering=1) as file:
    file.write("step,accuracy\\n")
    while step < 200:
        time.sleep(0.01)
        step += 1
        if step % 5 == 0:
            file.write(f"{step},{step / 1000}\\n")
            open(sys.argv[2] + ".new", "w").write(str(step))
            os.replace(sys.argv[2] + ".new", sys.argv[2])
""",
    )
    job = job_of(
        f"{PYTHON} numbered.py {{output_folder}} {{checkpoint}}",
        metrics={"source": "csv", "path": path, "value": "accuracy"},
        resume="{checkpoint}",
        environment={"BATCH": "{batch_size}"},
    )
    first = bench.slice(job, Until(samples=300))
    second = bench.slice(job, Until(samples=600))
    assert first.outcome is second.outcome is Outcome.PAUSED, (first.error, second.error)
    steps = [point.step for point in (*first.curve, *second.curve)]
    # Scores that are close together are not all stored.
    assert steps[:10] == list(range(5, 51, 5))
    assert steps[-1] >= 60
    assert second.repeated_seconds == 0.0
    assert any("is read instead" in words for words in second.remarks) == ("version_0" in path)


def test_only_rank_0_of_many_that_print_counts(bench: Bench) -> None:
    bench.write(
        "all.py",
        "import os, time\nfor step in range(1, 100):\n    time.sleep(0.02)\n"
        "    print(f\"step {step} acc={step / 1000 - 0.2 * int(os.environ['RANK']):.3f}\", flush=True)\n",
    )
    job = job_of(f"{PYTHON} all.py {{batch_size}}", one_per="rank", **OUTPUT)
    seen = bench.slice(job, Until(samples=200), configuration=CONFIGURATION.replaced(nodes=2))
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert values(seen)[:3] == [0.001, 0.002, 0.003]
    assert any("ranks disagree: rank 0 prints" in words for words in seen.remarks)


def test_positions_that_go_back_in_two_runs_are_a_fault_of_the_job(bench: Bench) -> None:
    bench.write(
        "folds.py",
        "import time\nfor fold in range(3):\n    for step in range(1, 8):\n        time.sleep(0.02)\n"
        "        print(f'step {step} acc={step / 100}', flush=True)\n",
    )
    job = job_of(f"{PYTHON} folds.py {{batch_size}}", **OUTPUT)
    first = bench.slice(job, Until(samples=10_000), probe="one")
    second = bench.slice(job, Until(samples=10_000), probe="two")
    assert first.outcome is second.outcome is Outcome.FAILED
    assert "fell from 70 to 10 samples" in first.error
    assert (first.job_fault, second.job_fault) == (False, True)


def test_what_looks_like_a_score_is_shown_where_none_was_read(bench: Bench) -> None:
    bench.write("other.py", "print('epoch 1 val_accuracy: 0.5')\n")
    seen = bench.slice(job_of(f"{PYTHON} other.py {{batch_size}}", **OUTPUT), Until(samples=100))
    assert seen.outcome is Outcome.FAILED
    assert any("epoch 1 val_accuracy: 0.5" in words for words in seen.remarks)


def running_remarks(bench: Bench, job: Job, until: Callable[[Measurement], bool]) -> tuple[str, ...]:
    """What is remarked of a slice in flight once it has come as far as `until` says."""
    prober = bench.prober(job)
    handle = prober.start(CONFIGURATION, Purpose.STATISTICS, Until(scores=1), bench.folder / "probe")
    while not until(seen := prober.poll(handle)):
        assert seen.outcome is Outcome.RUNNING, seen.error
        time.sleep(0.02)
    prober.cancel(handle)
    return seen.remarks


def test_lines_that_look_like_scores_are_warned_of_while_the_slice_runs(bench: Bench) -> None:
    bench.write(
        "other.py",
        "import time\nfor epoch in range(1000):\n"
        "    print(f'epoch {epoch} val_accuracy: {epoch / 1000}', flush=True)\n    time.sleep(0.05)\n",
    )
    job = job_of(f"{PYTHON} other.py {{batch_size}}", **OUTPUT)
    (warning,) = running_remarks(bench, job, lambda seen: bool(seen.remarks))
    assert "these look like scores and do not match: 'epoch 0 val_accuracy: 0.0'" in warning
    assert "[workload.metrics]" in warning
    # Another slice is warned of for what it prints itself: the pattern may have been corrected since.
    bench.write("mended.py", "import time\nprint('step 0 acc=0.1', flush=True)\ntime.sleep(60)\n")
    job = job_of(f"{PYTHON} mended.py {{batch_size}}", **OUTPUT)
    assert running_remarks(bench, job, lambda seen: bool(seen.curve)) == ()


def test_losses_of_the_first_epoch_are_no_reason_to_warn(bench: Bench) -> None:
    bench.write(
        "steps.py",
        "import json, os, time\nfor step in range(1, 1000):\n"
        "    line = json.dumps({'step': step, 'loss': 1 / step})\n"
        "    print(line, file=open(os.environ['PACELINE_METRICS'], 'a'))\n    time.sleep(0.02)\n",
    )
    job = job_of(f"{PYTHON} steps.py {{batch_size}}", epoch_samples=200)
    assert running_remarks(bench, job, lambda seen: seen.samples >= 100) == ()
    (warning,) = running_remarks(bench, job, lambda seen: seen.samples >= 300)
    assert "loss = 1.0" in warning


@pytest.mark.parametrize("value", ["91.5%", "91,5 %"])
def test_the_unit_is_kept_for_the_next_slices_of_the_study(bench: Bench, value: str) -> None:
    bench.write("percent.py", f"print('step 10 acc={value}'.replace(' %', '%'))\n")
    bench.write("plain.py", "print('step 20 acc=0.9')\n")
    for script, expected in (("percent.py", 0.915), ("plain.py", 0.009)):
        job = job_of(f"{PYTHON} {script} {{batch_size}}", **OUTPUT)
        seen = bench.slice(job, Until(samples=100), probe=script.removesuffix(".py"))
        assert values(seen) == [pytest.approx(expected)]
    assert seen.remarks == ()


def line(at: float, step: int | None, **more: object) -> ScriptLine:
    return ScriptLine(seen_at=at, step=step, **more)


def test_lines_that_were_read_at_once_are_spread_over_the_time_since_the_last() -> None:
    lump = [line(10.0, step) for step in (11, 12, 13, 14)]
    assert [one.seen_at for one in spread_block(lump, 6.0)] == pytest.approx([7.0, 8.0, 9.0, 10.0])
    timed = [replace(one, time=1.0) for one in lump]
    assert spread_block(timed, 6.0) == timed
    alone = [line(10.0, 11), line(10.0, None, value=0.5)]
    assert [one.seen_at for one in spread_block(alone, 6.0)] == [10.0, 10.0]


@pytest.mark.slow
def test_a_run_that_goes_on_from_another_one_s_epochs_is_stopped_too(bench: Bench) -> None:
    # Each slice ends at its first score, which alone shows no pace.
    bench.write(
        "epochs.py",
        """
import os, time
epoch = int(open("last").read()) if os.path.exists("last") else 0
while epoch < 100:
    time.sleep(0.5 if epoch < 2 else 2.2)  # longer than a slice waits otherwise
    epoch += 1
    with open("last", "w") as file:
        file.write(str(epoch))
    print(f"epoch {epoch} acc={epoch / 2000}", flush=True)
""",
    )
    metrics = {"source": "output", "pattern": r"epoch (?P<epoch>\d+) acc=(?P<value>\S+)"}
    job = job_of(f"{PYTHON} epochs.py {{batch_size}}", metrics=metrics, epoch_samples=100)
    first = bench.slice(job, Until(samples=200))
    assert first.outcome is Outcome.PAUSED, first.error
    second = bench.slice(job, Until(samples=100), probe="other")
    assert second.outcome is Outcome.FAILED
    assert "seems to resume by itself from a folder that all runs share" in second.error


def test_a_buffered_writer_that_starts_slowly_is_no_run_that_goes_on(bench: Bench) -> None:
    bench.write(
        "lumps.py",
        """
import sys, time
time.sleep(1.5)
rows = []
for step in range(1, 1000):
    time.sleep(0.01)
    if step % 10 == 0:
        rows.append(f"{step},{step / 2000}\\n")
    if step % 50 == 0:
        with open(sys.argv[2], "w") as file:
            file.write("step,value\\n" + "".join(rows))
""",
    )
    metrics = {"source": "csv", "path": "{output_folder}/log.csv"}
    job = job_of(f"{PYTHON} lumps.py {{batch_size}} {{output_folder}}/log.csv", metrics=metrics)
    seen = bench.slice(job, Until(samples=500))
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert seen.startup_seconds > 1.0
