from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.tuner.probes.commands.bench import CONFIGURATION as SETTINGS
from tests.tuner.probes.commands.bench import PYTHON, Bench, job_of, resumable
from tests.tuner.probes.commands.bench import SCRIPT as TRAINS
from tests.tuner.probes.conformance import ended
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged
from tuner.job import Job
from tuner.launchers import CommandLauncher, JobHandle, JobState, JobStatus, LocalNodes, RankFailure
from tuner.probes import Until
from tuner.probes.commands import prober as prober_module
from tuner.probes.commands.failures import Failure, FailureKind, classify, last_error
from tuner.probes.commands.task import checkpoint_of

TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    train()\n'
MEMORY, PORT = FailureKind.OUT_OF_MEMORY, FailureKind.PORT_IN_USE
CONFIGURATION = FailureKind.CONFIGURATION


def failed(
    *outputs: str, codes: tuple[int | None, ...] = (1,), resumed: bool = False, used: bool = False
) -> Failure:
    """The failure of copies that printed something and ended with these exit codes."""
    status = JobStatus(
        state=JobState.FAILED,
        failures=tuple(
            RankFailure(rank=rank, reason="it ended", exit_code=code)
            for rank, code in enumerate(codes)
            if code != 0
        ),
    )
    return classify(
        status, dict(enumerate(outputs)), job_of("train {batch_size}"), resumed=resumed, used=used
    )


@pytest.mark.parametrize(
    "error",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "RuntimeError: Unable to find a valid cuDNN algorithm to run convolution",
        "RuntimeError: GET was unable to find an engine to execute this computation",
        "Resource exhausted: Failed to allocate request for 2.00GiB on device ordinal 0",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory: you",
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error:\n\nDetected "
        "at node 'mul' defined at\nOOM when allocating tensor with shape[8,8]",
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.",
        "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 7 TiB for an array with shape (9, 9)",
        "MemoryError",
        "RuntimeError: DataLoader worker (pid 99) is killed by signal: Killed.",
    ],
)
def test_memory_that_does_not_suffice_is_known_by_the_words_of_every_framework(error: str) -> None:
    assert failed(f"step 10\n{TRACEBACK}{error}\n").kind is MEMORY


@pytest.mark.parametrize(
    "text",
    [
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\nAborted",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.",
        "train.sh: line 3:    99 Killed                  python train.py",
    ],
)
def test_memory_that_does_not_suffice_is_known_without_a_traceback(text: str) -> None:
    assert failed(f"step 10\nstep 20\n{text}\n").kind is MEMORY


@pytest.mark.parametrize("code", [-9, 137])
def test_a_process_killed_by_signal_9_was_out_of_memory(code: int) -> None:
    failure = failed("step 10\n", codes=(code,))
    assert failure.kind is MEMORY
    assert failure.error == "killed by signal 9, usually the kernel's memory killer"


@pytest.mark.parametrize(
    "text",
    [
        f"CUDA out of memory, trying 32\nstep 10\n{TRACEBACK}KeyError: 'label'\n",
        f"{TRACEBACK}torch.OutOfMemoryError: CUDA out of memory.\nstep 10\n{TRACEBACK}KeyError: 'label'\n",
        "CUDA out of memory, trying 32\nstep 10\nstep 20\nerror: the data are not there\n",
        "CUDA out of memory, trying 32\nstep 10\nstep 20\nstep 30\n",
        f"{TRACEBACK}RuntimeError: CUDA error: an illegal memory access was encountered\n",
        f"{TRACEBACK}grpc.RpcError: RESOURCE_EXHAUSTED: quota exceeded\n",
    ],
)
def test_only_the_last_error_counts(text: str) -> None:
    assert failed(text).kind is CONFIGURATION


def test_the_direct_cause_of_the_last_error_counts_but_not_what_was_handled() -> None:
    memory = f"{TRACEBACK}torch.OutOfMemoryError: CUDA out of memory.\n\n"
    last = f"{TRACEBACK}RuntimeError: the training failed\n"
    cause = "The above exception was the direct cause of the following exception:\n\n"
    handled = "During handling of the above exception, another exception occurred:\n\n"
    assert failed(memory + cause + last).kind is MEMORY
    assert failed(memory + handled + last).kind is CONFIGURATION


def test_the_error_of_a_wrapper_gives_way_to_that_of_the_script() -> None:
    memory = f"[rank0]: {TRACEBACK}[rank0]: torch.OutOfMemoryError: CUDA out of memory.\n"
    wrapper = (
        f"{TRACEBACK}torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\ntrain.py FAILED\n"
    )
    assert failed(memory + wrapper).kind is MEMORY
    assert failed(f"{TRACEBACK}KeyError: 3\n{wrapper}").kind is CONFIGURATION
    assert (
        failed(
            wrapper + "  exitcode  : -9 (pid: 7)\n  traceback : Signal 9 (SIGKILL) received by PID 7\n"
        ).kind
        is MEMORY
    )


def test_a_missing_script_under_torchrun_is_named_instead_of_the_report_of_torchrun() -> None:
    missing = "/venv/bin/python: can't open file '/work/trian.py': [Errno 2] No such file or directory"
    log = "E1130 11:24:22.5 10 torch/distributed/elastic/multiprocessing/api.py:1] failed (exitcode: 2)\n"
    name = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: "
    report = f"{'=' * 60}\ntrian.py FAILED\n{'-' * 60}\n  exitcode  : 2 (pid: 7)\n{'=' * 60}\n"
    found = failed(f"{missing}\n{log}{TRACEBACK}{name}\n{report}")
    assert found.error == missing
    assert found.is_of_script
    unexplained = failed(f"{log}{TRACEBACK}{name}\n{report}")
    assert not unexplained.is_of_script
    assert "ChildFailedError" in unexplained.error


def test_of_several_copies_the_one_that_failed_by_itself_counts() -> None:
    lost = f"{TRACEBACK}RuntimeError: [gloo] Connection closed by peer\n"
    memory, wrong = f"{TRACEBACK}MemoryError\n", f"{TRACEBACK}KeyError: 3\n"
    assert failed(lost, memory, codes=(1, 1)).kind is MEMORY
    assert failed("step 10", wrong, codes=(-9, 1)).kind is CONFIGURATION
    assert failed("step 10", lost, codes=(-9, 1)).kind is MEMORY
    assert failed(wrong, "step 10", codes=(1, -15)).kind is CONFIGURATION


def test_a_port_in_use_is_known_by_its_words() -> None:
    assert failed(f"{TRACEBACK}OSError: [Errno 98] Address already in use\n").kind is PORT
    torch = "RuntimeError: The server socket has failed to listen on any local network address. port: 29500, "
    assert failed(f"{TRACEBACK}{torch}code: -98, name: EADDRINUSE\n").kind is PORT


@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError: expected out/config.yaml to NOT exist. Aborting to avoid overwriting results",
        "ValueError: Output directory (out) already exists and is not empty. Use --overwrite_output_dir",
        "FileExistsError: [Errno 17] File exists: 'out'",
    ],
)
def test_a_script_that_refuses_its_old_folder_differs_from_one_that_fails(error: str) -> None:
    text = f"{TRACEBACK}{error}\n"
    assert failed(text, resumed=True).kind is FailureKind.RESUME_REFUSED
    assert failed(text, used=True).kind is FailureKind.RESUME_REFUSED
    assert failed(text).kind is CONFIGURATION


def test_a_failure_at_resumption_is_the_checkpoint_s() -> None:
    text = f"{TRACEBACK}_pickle.UnpicklingError: pickle data was truncated\n"
    assert failed(text, resumed=True).kind is FailureKind.CHECKPOINT
    assert failed(text).kind is CONFIGURATION
    assert failed(f"{TRACEBACK}MemoryError\n", resumed=True).kind is MEMORY


def test_an_endless_output_is_searched_at_its_end_only() -> None:
    assert last_error("MemoryError\n" + "x" * 10**5 + f"\n{TRACEBACK}KeyError: 1") == "KeyError: 1"


#: Prints something and kills itself, or raises, once it has trained a little.
BREAKS = """
import os, sys, time
from paceline_client import report
report(step=1, samples=10, value=0.1)
report(step=2, samples=20, value=0.2)
time.sleep(0.1)
{code}
"""


def broken(bench: Bench, code: str) -> Measurement:
    bench.write("breaks.py", BREAKS.format(code=code))
    return bench.slice(job_of(f"{PYTHON} breaks.py {{batch_size}}"), Until(samples=10**6))


def test_a_killed_script_is_out_of_memory_and_a_survived_hint_is_not(bench: Bench) -> None:
    killed = broken(bench, "os.kill(os.getpid(), 9)")
    assert killed.outcome is Outcome.OUT_OF_MEMORY
    assert killed.error.splitlines()[-1] == (
        "out of memory: killed by signal 9, usually the kernel's memory killer; "
        "smaller batches are tried next"
    )
    survived = broken(bench, "print('CUDA out of memory, trying 32')\nraise KeyError('label')")
    assert survived.outcome is Outcome.FAILED
    assert not survived.infrastructure_fault
    assert survived.error.splitlines()[-1] == "KeyError: 'label'"


#: Finds its port in use so many times.
PORT_USED = """
import sys
from pathlib import Path
tries = Path("tries")
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) <= {times}:
    raise OSError(98, "Address already in use")
sys.argv.append("steps=20")
"""


@pytest.mark.parametrize(("times", "outcome"), [(2, Outcome.STOPPED), (3, Outcome.FAILED)])
def test_a_port_in_use_is_tried_again_up_to_three_times(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, times: int, outcome: Outcome
) -> None:
    monkeypatch.setattr(prober_module, "_PORT_SECONDS", 0.1)
    bench.write("port.py", PORT_USED.format(times=times) + TRAINS)
    seen = bench.slice(job_of(f"{PYTHON} port.py batch={{batch_size}}"), Until(samples=10**6))
    assert seen.outcome is outcome
    assert (bench.folder / "tries").read_text() == "xxx"
    if outcome is Outcome.FAILED:
        assert seen.infrastructure_fault
        assert "its port was in use" in seen.error
        assert "3 times in a row without any progress: no more tries" in seen.error


def slices(
    bench: Bench, job: Job, *samples: int, before_last: Callable[[], object] = int
) -> list[Measurement]:
    """Slices of one probe, as one prober makes them; something happens before the last."""
    prober, found = bench.prober(job), []
    for place, until in enumerate(samples):
        if place == len(samples) - 1:
            before_last()
        handle = prober.start(SETTINGS, Purpose.STATISTICS, Until(samples=until), bench.folder / "probe")
        found.append(ended(prober, handle))
    return found


def test_a_run_whose_checkpoint_cannot_be_read_starts_anew_once(bench: Bench) -> None:
    checkpoint = checkpoint_of(bench.folder / "probe")

    def spoil() -> None:
        checkpoint.write_text('{"step": ')

    first, second = slices(bench, resumable(), 200, 400, before_last=spoil)
    assert second.outcome is Outcome.PAUSED, second.error
    (remark,) = second.remarks
    assert remark.startswith("its checkpoint could not be read (json.decoder.JSONDecodeError: ")
    assert remark.endswith("its run restarted from scratch, and its saved files were moved aside")
    assert not second.resume_refused
    # It is charged for what it trains again, and its own curve replaces that of the last slice.
    assert second.repeated_seconds > 0.5 * first.training_seconds
    assert second.charged_seconds > second.repeated_seconds
    samples = [point.samples for point in merged([first, second]).curve]
    assert samples == sorted(set(samples))
    assert samples[-1] >= 400
    stored = list((bench.folder / "probe" / "set_aside").glob("*/checkpoints/checkpoint"))
    assert [path.read_text() for path in stored] == ['{"step": ']

    spoil()
    prober = bench.prober(resumable())
    again = ended(
        prober, prober.start(SETTINGS, Purpose.STATISTICS, Until(samples=600), bench.folder / "probe")
    )
    assert again.outcome is Outcome.FAILED
    assert again.error.splitlines()[-1].endswith(
        "although the run had restarted from scratch: the run is stopped"
    )


@pytest.mark.slow
def test_a_run_whose_saving_takes_longer_than_its_grace_says_so_and_resumes_no_more(bench: Bench) -> None:
    truncates = """
import signal
def save(*_):
    with open(checkpoint_path(), "w") as file:
        file.write('{"step": ')
        file.flush()
        time.sleep(30)
signal.signal(signal.SIGTERM, save)
should_stop = lambda: False
"""
    bench.write("truncates.py", TRAINS.replace("options =", truncates + "options =", 1))
    job = job_of(f"{PYTHON} truncates.py batch={{batch_size}}", resume="resume={checkpoint}", grace="0.2s")
    _, second, third = slices(bench, job, 100, 200, 300)
    assert second.resume_refused
    assert second.remarks[0].endswith(
        "later slices start over, too. Saving took longer than workload.grace = 0.2 s: raise workload.grace"
    )
    assert third.outcome is Outcome.PAUSED, third.error
    assert third.remarks == ()
    assert ["resume=" in command for command in bench.commands()] == [False, True, False, False]


#: Refuses a folder that it used before.
REFUSES = """
import os, sys
folder = sys.argv.pop()
os.makedirs(folder, exist_ok=True)
if os.path.exists(folder + "/config.yaml"):
    raise RuntimeError("expected config.yaml to NOT exist")
open(folder + "/config.yaml", "w").close()
"""


@pytest.mark.parametrize("resume", ["resume={checkpoint}/x", ""])
def test_a_script_that_refuses_its_old_folder_starts_over_in_a_clean_one(bench: Bench, resume: str) -> None:
    saves = TRAINS.replace("open(checkpoint_path()", 'open(folder + "/x"')
    bench.write("refuses.py", REFUSES + saves)
    more = {"resume": resume} if resume else {}
    job = job_of(f"{PYTHON} refuses.py batch={{batch_size}} {{checkpoint}}", **more)
    if resume:
        # The options of a resumption come last.
        bench.write("refuses.py", REFUSES.replace("sys.argv.pop()", "sys.argv.pop(2)") + saves)
    _, second, third = slices(bench, job, 100, 200, 300)
    for seen in (second, third):
        assert seen.outcome is Outcome.PAUSED, seen.error
    assert second.resume_refused
    what = "to resume" if resume else "a folder with files of an earlier start"
    assert second.remarks[0].startswith(f"the script refused {what} (RuntimeError: expected config.yaml")
    # The next slice knows: it starts over at once, in a clean folder. So does one of another tuner.
    (fourth,) = slices(bench, job, 400)
    for seen in (third, fourth):
        assert seen.outcome is Outcome.PAUSED, seen.error
        assert seen.remarks == ()
    assert len(bench.commands()) == 5
    assert len(list((bench.folder / "probe" / "set_aside").glob("*/checkpoints/checkpoint"))) == 3


def test_a_script_that_refuses_every_start_is_given_up(bench: Bench) -> None:
    code = "import os, sys\nif os.path.exists('used'): sys.exit('the output already exists')\n"
    bench.write("never.py", code + "open('used', 'w').close()\n" + TRAINS)
    job = job_of(f"{PYTHON} never.py batch={{batch_size}}")
    _, second = slices(bench, job, 100, 200)
    assert second.outcome is Outcome.FAILED
    assert not second.infrastructure_fault
    assert second.error.splitlines()[-1] == (
        "the script refused a folder with files of an earlier start (the output already exists), "
        "although the run had restarted from scratch: the run is stopped"
    )


def test_a_script_that_ends_by_itself_is_remarked(bench: Bench) -> None:
    seen = bench.slice(job_of(f"{PYTHON} train.py batch={{batch_size}} steps=20"), Until(samples=10**6))
    assert seen.outcome is Outcome.STOPPED
    assert seen.remarks == (
        "the script ended by itself after 200 samples (step 20) at accuracy 0.1667, before it reached "
        "the target: let it train for more epochs",
    )


@pytest.mark.parametrize(
    ("line", "first", "second"),
    [
        # No other values would help, as its words say.
        ("open('missing.csv')", True, True),
        ("import no_such_module", True, True),
        ("sys.exit('train.py: error: unrecognized arguments: --lr 0.5')", True, True),
        # The same error at the same line with other values.
        ("{}['label']", False, True),
        # It depends on the values.
        ("raise ValueError(f'{batch} samples are too many')", False, False),
    ],
)
def test_a_failure_before_the_first_report_that_no_values_mend_is_the_script_s(
    bench: Bench, line: str, first: bool, second: bool
) -> None:
    bench.write("broken.py", f"import sys\nbatch = int(sys.argv[1])\n{line}\n")
    job = job_of(f"{PYTHON} broken.py {{batch_size}}")
    for probe, batch_size, is_of_script in (("0001", 10, first), ("0002", 20, second)):
        values = SETTINGS.replaced(batch_size=batch_size)
        seen = bench.slice(job, Until(samples=300), probe=probe, configuration=values)
        assert seen.outcome is Outcome.FAILED
        assert seen.job_fault is is_of_script
        assert ("its command is broken" in (seen.error or "")) is is_of_script
        # Only what was seen is said of other values.
        assert ("with another configuration, too" in (seen.error or "")) is (is_of_script and probe == "0002")


class SilentLauncher(CommandLauncher):
    """Every job fails without a word, as of a scheduler that knows no more."""

    def poll(self, handle: JobHandle) -> JobStatus:
        super().poll(handle)
        return JobStatus(state=JobState.FAILED)

    def logs(self, handle: JobHandle) -> dict[int, str]:
        return {}


def test_a_first_failure_without_a_word_is_not_called_the_script_s(bench: Bench) -> None:
    bench.write("quiet.py", "")
    job = job_of(f"{PYTHON} quiet.py {{batch_size}}")
    seen = bench.slice(job, Until(samples=300), launcher=SilentLauncher(LocalNodes()))
    assert (seen.outcome, seen.job_fault) == (Outcome.FAILED, False)


def test_a_script_that_has_reported_once_is_not_called_broken(bench: Bench) -> None:
    report = "open(os.environ['PACELINE_METRICS'], 'a').write('{\"samples\": 10, \"value\": 0.1}\\n')"
    bench.write("late.py", f"import os, sys\nif sys.argv[1] == '10':\n    {report}\nopen('missing.csv')\n")
    job = job_of(f"{PYTHON} late.py {{batch_size}}")
    for probe, batch_size in (("0001", 10), ("0002", 20)):
        values = SETTINGS.replaced(batch_size=batch_size)
        seen = bench.slice(job, Until(samples=300), probe=probe, configuration=values)
        assert (seen.outcome, seen.job_fault) == (Outcome.FAILED, False)
