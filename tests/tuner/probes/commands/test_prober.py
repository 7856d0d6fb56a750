from __future__ import annotations

import json
import time

import pytest

from tests.tuner.probes.commands.bench import (
    CONFIGURATION,
    OTHER_PYTHON,
    PYTHON,
    SCRIPT,
    Bench,
    LosesOneThatSaved,
    job_of,
    repeating,
    resumable,
    values,
)
from tests.tuner.probes.commands.shell_launcher import ShellLauncher
from tests.tuner.probes.conformance import ended
from tuner.domain.measurement import Outcome, Purpose, merged
from tuner.probes import Until
from tuner.probes.commands.prober import CommandProber
from tuner.probes.commands.task import checkpoint_of
from tuner.probes.score_schedule import score_schedule


def test_slice_pauses_where_it_was_asked_to_with_curve_times_and_charge(bench: Bench) -> None:
    seen = bench.slice(resumable("startup=0.3"), Until(samples=300))
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert (seen.samples, seen.step) == (300, 30)
    assert [point.samples for point in seen.curve] == list(range(0, 301, 50))
    assert values(seen)[-1] == pytest.approx(300 / 1300)
    seconds = [point.training_seconds for point in seen.curve]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0.0
    assert seconds[-1] <= seen.training_seconds
    # 30 steps of 10 ms; the machine may be slow, not quick.
    assert 0.3 <= seen.training_seconds < seen.charged_seconds
    assert 0.3 <= seen.startup_seconds < seen.charged_seconds
    assert seen.error is None
    assert seen.checkpoint == str(checkpoint_of(bench.folder / "probe"))


def test_steps_are_timed_by_the_intervals_between_lines(bench: Bench) -> None:
    job = job_of(f"{PYTHON} train.py batch={{batch_size}} delay=0.02", parameter_bytes=4000)
    seen = bench.slice(job, Until(steps=20), purpose=Purpose.TIMING)
    assert seen.outcome is Outcome.STOPPED, seen.error
    assert seen.step == 20
    assert seen.curve == ()
    assert seen.checkpoint is None
    assert seen.step_seconds is not None
    assert seen.step_seconds.count >= 10
    assert seen.step_seconds.median >= 0.02
    (rank,) = seen.ranks
    assert (rank.batch_size, rank.count, rank.compute) == (10, 1, rank.step)
    assert seen.parameter_bytes == 4000


def test_next_slice_resumes_and_its_clock_goes_on(bench: Bench) -> None:
    first = bench.slice(resumable(), Until(samples=200))
    second = bench.slice(resumable("startup=0.5"), Until(samples=500))
    assert "resume=" in bench.commands()[1]
    assert first.outcome is second.outcome is Outcome.PAUSED
    assert [p.samples for p in (*first.curve, *second.curve)] == list(range(0, 501, 50))
    assert second.step == 50
    assert second.repeated_seconds == 0.0
    # 20 and 30 steps: start-up is not training.
    added = second.training_seconds - first.training_seconds
    assert 0.3 <= added < second.charged_seconds - 0.5
    assert second.startup_seconds >= 0.5


def test_slice_that_cannot_resume_pays_again_and_its_curve_holds_no_doubles(bench: Bench) -> None:
    first = bench.slice(repeating(), Until(samples=200))
    second = bench.slice(repeating(), Until(samples=400))
    both = merged([first, second])
    assert [p.samples for p in both.curve] == list(range(0, 401, 50))
    seconds = [p.training_seconds for p in both.curve]
    assert seconds == sorted(seconds)
    assert second.repeated_seconds >= 0.2
    added = second.training_seconds - first.training_seconds
    assert added >= 0.2
    assert second.charged_seconds > added + second.repeated_seconds
    assert first.repeated_seconds == 0.0


def test_time_between_two_lines_of_the_same_samples_is_scoring(bench: Bench) -> None:
    seen = bench.slice(resumable("scoring=0.2"), Until(samples=200))
    assert seen.scoring_seconds >= 4 * 0.2
    assert seen.training_seconds + seen.scoring_seconds < seen.charged_seconds
    assert seen.step_seconds is not None
    assert seen.step_seconds.mean < 0.1


def test_target_ends_a_slice(bench: Bench) -> None:
    seen = bench.slice(resumable(target=0.2), Until(samples=10**6))
    assert seen.outcome is Outcome.REACHED
    assert seen.curve[-1].value >= 0.2 > seen.curve[-2].value
    assert seen.checkpoint is not None


ONCE_AN_EPOCH = """
import sys, time
for epoch in range(1, 20):
    time.sleep(0.3)
    print(f"epoch {epoch} acc={epoch / 100}", flush=True)
"""


def test_a_script_that_reports_once_an_epoch_is_timed_by_its_first(bench: Bench) -> None:
    bench.write("epochs.py", ONCE_AN_EPOCH)
    pattern = r"epoch (?P<epoch>\d+) acc=(?P<value>\S+)"
    job = job_of(
        f"{PYTHON} epochs.py {{batch_size}}",
        metrics={"source": "output", "pattern": pattern},
        epoch_samples=100,
    )
    prober = bench.prober(job)
    handle = prober.start(CONFIGURATION, Purpose.STATISTICS, Until(samples=1), bench.folder / "probe")
    seen = ended(prober, handle)
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert not seen.reports_steps
    assert [point.samples for point in seen.curve] == [100 * n for n in range(1, len(seen.curve) + 1)]
    assert seen.step_seconds is not None
    assert 0.02 <= seen.step_seconds.mean < 0.06
    schedule = score_schedule(job, [seen])
    assert schedule.next_after(CONFIGURATION, seen.samples) == seen.samples + 100
    assert not schedule.times_steps
    heard = prober.heard(handle)
    assert heard.matched["epoch 1 acc=0.01"] == "epoch 1, value 0.01"


def test_a_slice_ends_right_after_a_score(bench: Bench) -> None:
    seen = bench.slice(resumable("every=10"), Until(samples=230))
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert seen.curve[-1].samples == 300
    assert seen.samples <= 320


def test_script_that_ends_by_itself_is_stopped(bench: Bench) -> None:
    seen = bench.slice(resumable("steps=20"), Until(samples=1000))
    assert seen.outcome is Outcome.STOPPED
    assert seen.samples == 200


def test_value_that_is_no_number_is_divergence(bench: Bench) -> None:
    bench.write(
        "nan.py",
        "import time\nfrom paceline_client import report\nreport(samples=10, value=0.5)\n"
        "report(samples=20, value=float('nan'))\ntime.sleep(60)\n",
    )
    seen = bench.slice(job_of(f"{PYTHON} nan.py {{batch_size}}"), Until(samples=1000))
    assert seen.outcome is Outcome.DIVERGED
    assert values(seen) == [0.5]


def test_failure_has_exit_code_and_last_words_of_the_copy_that_failed(bench: Bench) -> None:
    bench.write(
        "broken.py",
        "import os, sys, time\nif os.environ['RANK'] == '1':\n    sys.exit('no such data')\ntime.sleep(60)\n",
    )
    job = job_of(f"{PYTHON} broken.py {{batch_size}}", one_per="rank")
    two = CONFIGURATION.replaced(nodes=2)
    seen = bench.slice(job, Until(samples=100), configuration=two)
    assert seen.outcome is Outcome.FAILED
    assert "rank 1 failed with exit code 1" in seen.error
    assert "no such data" in seen.error


@pytest.mark.parametrize(
    "code", ["raise MemoryError", "raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')"]
)
def test_memory_that_does_not_suffice_is_distinguished(bench: Bench, code: str) -> None:
    bench.write("large.py", code)
    seen = bench.slice(job_of(f"{PYTHON} large.py {{batch_size}}"), Until(samples=100))
    assert seen.outcome is Outcome.OUT_OF_MEMORY


def test_silence_ends_a_slice_and_names_the_key(bench: Bench) -> None:
    bench.write("silent.py", "import time\ntime.sleep(60)\n")
    job = job_of(f"{PYTHON} silent.py {{batch_size}}", probe={"hang_timeout": 0.5}, grace=1.0)
    seen = bench.slice(job, Until(samples=100))
    assert seen.outcome is Outcome.TIMED_OUT
    assert "probe.hang_timeout" in seen.error
    assert "$PACELINE_METRICS" in seen.error


def test_script_that_reports_nothing_learns_what_was_expected(bench: Bench) -> None:
    seen = bench.slice(job_of("true {batch_size}"), Until(samples=100))
    assert seen.outcome is Outcome.FAILED
    assert "reported nothing" in seen.error
    assert "'samples'" in seen.error


def test_script_that_never_scores_gets_the_name(bench: Bench) -> None:
    job = job_of(
        """printf '{"samples": 50, "accuracy": 0.5}\\n' >> {metrics}; : {batch_size}""".replace(
            '{"samples": 50, "accuracy": 0.5}', '{{"samples": 50, "accuracy": 0.5}}'
        )
    )
    seen = bench.slice(job, Until(samples=100))
    assert seen.outcome is Outcome.FAILED
    assert "'value'" in seen.error


def test_bad_lines_are_passed_over_with_a_warning(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.write(
        "odd.py",
        "import os\nwith open(os.environ['PACELINE_METRICS'], 'a') as file:\n"
        "    print('not JSON', file=file)\n"
        '    print(\'{"samples": "many", "value": 1}\', file=file)\n'
        '    print(\'{"samples": 50, "value": 0.5}\', file=file)\n'
        '    file.write(\'{"samples": 60, "val\')\n',
    )
    seen = bench.slice(job_of(f"{PYTHON} odd.py {{batch_size}}"), Until(samples=1000))
    assert seen.outcome is Outcome.STOPPED
    assert values(seen) == [0.5]
    assert len(caplog.records) == 3
    assert "is not JSON" in caplog.text
    assert "which is not a number" in caplog.text


def test_script_that_never_asks_gets_sigterm_and_time_to_save(bench: Bench) -> None:
    bench.write(
        "polite.py",
        """
import json, os, signal, sys, time
samples = 0
if len(sys.argv) > 2:
    samples = int(open(sys.argv[2]).read())
def save(*_):
    open(os.environ["PACELINE_CHECKPOINT"], "w").write(str(samples))
    sys.exit(3)
signal.signal(signal.SIGTERM, save)
while True:
    time.sleep(0.02)
    samples += 10
    with open(os.environ["PACELINE_METRICS"], "a") as file:
        file.write(json.dumps({"samples": samples, "value": samples / 1e5}) + "\\n")
""",
    )
    job = job_of(f"{PYTHON} polite.py {{batch_size}}", resume="{checkpoint}")
    first = bench.slice(job, Until(samples=100))
    assert first.outcome is Outcome.PAUSED, first.error
    second = bench.slice(job, Until(samples=1000))
    assert second.outcome is Outcome.PAUSED, second.error
    assert second.curve[0].samples > first.curve[-1].samples
    assert second.repeated_seconds == 0.0
    assert second.training_seconds > first.training_seconds


def test_waiting_for_nodes_is_shown_and_costs_nothing(bench: Bench) -> None:
    waited = 0.0

    def clock() -> float:
        return time.monotonic() + waited

    launcher = ShellLauncher(pending_polls=10, clock=clock)
    prober = CommandProber(resumable(), bench.folder, launcher, clock)
    try:
        handle = prober.start(CONFIGURATION, Purpose.STATISTICS, Until(samples=100), bench.folder / "probe")
        for _ in range(9):
            waiting = prober.poll(handle)
            assert waiting.outcome is Outcome.RUNNING
            assert waiting.waiting == "Resources"
            assert waiting.charged_seconds < 1.0
            waited += 1000.0
        seen = ended(prober, handle)
    finally:
        prober.close()
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert seen.waiting == ""
    assert seen.charged_seconds < 1000.0


def test_lost_job_is_submitted_again_from_its_checkpoint(bench: Bench) -> None:
    bench.write(
        "saves.py",
        SCRIPT.replace(
            "    if should_stop():",
            """
    if step % every == 0:
        with open(checkpoint_path() + ".new", "w") as file:
            json.dump({"step": step}, file)
        os.replace(checkpoint_path() + ".new", checkpoint_path())
    if should_stop():""",
        ),
    )
    launcher = LosesOneThatSaved(checkpoint_of(bench.folder / "probe"))
    job = job_of(f"{PYTHON} saves.py batch={{batch_size}} delay=0.03", resume="resume={checkpoint}")
    seen = bench.slice(job, Until(samples=600), launcher=launcher)
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert len(launcher.submitted) == 2
    assert "resume=" in launcher.submitted[1].command
    samples = [point.samples for point in seen.curve]
    assert samples == list(range(0, 601, 50))
    seconds = [point.training_seconds for point in seen.curve]
    assert seconds == sorted(seconds)


def test_job_that_is_lost_again_and_again_fails(bench: Bench) -> None:
    launcher = ShellLauncher(lost=(0.0, 0.0, 0.0, 0.0))
    seen = bench.slice(resumable("startup=5"), Until(samples=100), launcher=launcher)
    assert seen.outcome is Outcome.FAILED
    assert "3 times in a row without any progress" in seen.error
    assert len(launcher.submitted) == 3


def test_cancelled_slice_is_stopped_and_the_next_waits_until_it_has_saved(bench: Bench) -> None:
    bench.write(
        "slow.py",
        SCRIPT.replace(
            "begin(step",
            """import signal
def save(*_):
    time.sleep(0.5)
    json.dump({"step": step}, open(checkpoint_path(), "w"))
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
begin(step""",
        ),
    )
    job = job_of(f"{PYTHON} slow.py batch={{batch_size}}", resume="resume={checkpoint}")
    prober = bench.prober(job)
    folder = bench.folder / "probe"
    handle = prober.start(CONFIGURATION, Purpose.TRAINING, Until(training_seconds=3600), folder)
    while not prober.poll(handle).curve:
        time.sleep(0.01)
    prober.cancel(handle)
    stopped = prober.poll(handle)
    assert stopped.outcome is Outcome.STOPPED
    prober.cancel(handle)
    assert prober.poll(handle) == stopped
    after = ended(prober, prober.start(CONFIGURATION, Purpose.TRAINING, Until(samples=2000), folder))
    assert after.outcome is Outcome.PAUSED, after.error
    assert "resume=" in bench.commands()[1]
    assert all(point.samples > stopped.samples for point in after.curve)


def test_what_a_killed_tuner_s_slice_had_saved_is_not_lost(bench: Bench) -> None:
    # Having saved, it goes on until it was seen to run: no poll comes too late.
    save = """with open(checkpoint_path() + ".new", "w") as file:
    json.dump({"step": step}, file)
os.replace(checkpoint_path() + ".new", checkpoint_path())
while "resume" not in options and not os.path.exists("was_seen"):
    time.sleep(0.01)
"""
    before, saving, _ = SCRIPT.partition("with open(checkpoint_path()")
    assert saving
    bench.write("train.py", before + save)
    prober = bench.prober(resumable())
    folder = bench.folder / "probe"
    handle = prober.start(CONFIGURATION, Purpose.STATISTICS, Until(samples=300), folder)
    while not checkpoint_of(folder).exists():
        time.sleep(0.01)
    assert prober.poll(handle).outcome is Outcome.RUNNING
    # Nobody polls any more: another tuner goes on.
    bench.write("was_seen", "")
    seen = bench.slice(resumable(), Until(samples=600))
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert [point.samples for point in seen.curve] == list(range(0, 601, 50))
    seconds = [point.training_seconds for point in seen.curve]
    assert seconds == sorted(seconds)


def test_what_a_tuner_saw_that_was_killed_as_its_slice_ended_is_not_lost(bench: Bench) -> None:
    first = bench.slice(resumable(), Until(samples=300))
    assert first.outcome is Outcome.PAUSED, first.error
    metrics = bench.folder / "probe" / "metrics.jsonl"
    *lines, end = metrics.read_text().splitlines()
    assert "ended" in end
    metrics.write_text("".join(f"{line}\n" for line in lines))
    seen = bench.slice(resumable(), Until(samples=600))
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert [point.samples for point in seen.curve] == list(range(0, 601, 50))
    seconds = [point.training_seconds for point in seen.curve]
    assert seconds == sorted(seconds)


def test_script_learns_everything_three_ways_and_finds_nothing_of_ours(bench: Bench) -> None:
    bench.write(
        "tell.py",
        """
import json, os, sys
from paceline_client import report, values
try:
    import search_spaces
except ImportError:
    print("nothing of ours")
told = {"arguments": sys.argv[1:], "values": values(), "environment": dict(os.environ)}
json.dump(told, open("told.json", "w"))
report(samples=10, value=0.5)
""",
    )
    job = job_of(
        f"{OTHER_PYTHON} tell.py {{learning_rate}} {{batch_size_per_rank}} {{accumulation}} "
        "{node_rank} {{x}}",
        environment={"LR": "{learning_rate}", "OMP_NUM_THREADS": "1"},
        probe={"max_batch_size_per_rank": 5},
    )
    seen = bench.slice(job, Until(samples=10))
    assert seen.outcome is Outcome.PAUSED, seen.error
    heard = json.loads((bench.folder / "told.json").read_text())
    assert heard["arguments"] == ["0.5", "10", "2", "0", "{x}"]
    assert heard["values"]["micro_batch_size"] == 5
    assert heard["environment"]["PACELINE_LEARNING_RATE"] == "0.5"
    assert heard["environment"]["LR"] == "0.5"
    (log,) = (bench.folder / "probe" / "slices").glob("*/job-*/node-0.log")
    assert "nothing of ours" in log.read_text()


def test_gradient_noise_comes_from_two_norms(bench: Bench) -> None:
    bench.write(
        "noise.py",
        "from paceline_client import gradient_noise, report\n"
        "gradient_noise(samples=10, small_batch=5, small_squared_norm=3.0, large_batch=10,"
        " large_squared_norm=2.0)\nreport(samples=10, value=0.5)\n",
    )
    seen = bench.slice(job_of(f"{PYTHON} noise.py {{batch_size}}"), Until(samples=10))
    (statistic,) = seen.noise
    # |G|^2 + S/5 = 3 and |G|^2 + S/10 = 2.
    assert statistic.noise == pytest.approx(10.0)
    assert statistic.squared_gradient == pytest.approx(1.0)
