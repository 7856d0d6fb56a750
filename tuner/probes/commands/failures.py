"""Classifies the failure of a command by the exit codes of its processes and the last error they printed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuner.job import Job
from tuner.launchers import JobStatus, RankFailure

_LAST_LINES = 20
#: Number of characters at the end of a process's output that are searched for the last error.
_SEARCHED_CHARACTERS = 2**16
#: Number of lines at the end of the output that are searched for an error if there is no traceback.
_ERROR_LINES = 3
_SHOWN_CHARACTERS = 200
#: Exit codes of processes that were ended by SIGKILL, and by SIGTERM: as Python and as a shell report them.
_KILLED, _ASKED = (-9, 137), (-15, 143)


class FailureKind(StrEnum):
    """Why a command failed."""

    OUT_OF_MEMORY = "out of memory"
    PORT_IN_USE = "port in use"
    """A network port was in use: the same command may succeed a moment later."""
    CHECKPOINT = "checkpoint"
    """The script was asked to resume and failed before it did another training step."""
    RESUME_REFUSED = "resume refused"
    """The script refuses to resume, or to start in a folder with files of an earlier run."""
    CONFIGURATION = "configuration"
    """Any other failure: the same command would fail again."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The failure of a command.

    Args:
        kind: Class of the failure, which determines whether the command is run again.
        error: The line of the output with the error message.
        words: Text for the user with the exit codes and the last lines of output.
        identity: The whole error and the source line that raised it, to recognize the same failure in another
            run.
    """

    kind: FailureKind
    error: str
    words: str
    identity: str

    @property
    def is_of_script(self) -> bool:
        """Whether the error shows that the script, its data or its command is broken."""
        return _BROKEN.search(self.error) is not None


_MEMORY = re.compile(
    r"out[ _]of[ _]memory|OutOfMemory|\bMemoryError\b|\boom[-_ ]?kill|\bOOM when|std::bad_alloc"
    r"|RESOURCE[_ ]?EXHAUSTED(?!.*(quota|larger than max))"
    r"|ALLOC_FAILED|MemoryAllocation|\bENOMEM\b|(cannot|can't|could not|failed to|unable to) alloc"
    r"|(not enough|insufficient) memory|memory exhausted"
    # Errors of cuBLAS and cuDNN if no memory is left for their workspace.
    r"|CU(DNN|BLAS)_STATUS_NOT_INITIALIZED|find a valid cuDNN algorithm|cuDNN failed to initialize"
    r"|unable to find an engine to execute|failed to create cublas handle",
    re.IGNORECASE,
)
_KILLED_WORDS = re.compile(r"\bSIGKILL\b|\bsignal:? (9\b|Killed)|\bKilled\b|exitcode\s*:\s*-9\b")
_PORT = re.compile(r"address already in use|EADDRINUSE|port:? \d+.{0,20} in use", re.IGNORECASE)
_REFUSED = re.compile(
    r"to not exist|already exists|overwrit|not empty|non-empty|FileExistsError"
    r"|(unrecognized|unknown|unexpected) (argument|option|flag)|no such option",
    re.IGNORECASE,
)
#: Matches errors that occur with every configuration: a file or module is missing, or the command line is
#: invalid.
_BROKEN = re.compile(
    r"FileNotFoundError|ModuleNotFoundError|No such file|unrecognized arguments|command not found"
    r"|: not found$"  # as dash says it
)
_FRAME = re.compile(r'File "[^"]+", line \d+')
#: Matches errors of a process that lost the connection to another process; the error of the other process is
#: the cause.
_PEER_LOST = re.compile(
    r"connection (was )?(closed|reset|refused|aborted)|broken pipe|remote process exited|\bpeer\b"
    r"|DistBackendError|SIGTERM|Socket Timeout",
    re.IGNORECASE,
)
#: Matches errors of programs that start the script, such as torchrun. The error of the script itself is
#: printed earlier in the output.
_OF_WRAPPER = re.compile(r"\b(ChildFailedError|CalledProcessError|SignalException)\b")
#: Matches errors without a traceback, such as `train.py: error: unrecognized arguments`.
_OWN_ERROR = re.compile(
    r"^(\[\S+\]:?\s?)?(\S+: )?(error|fatal|[A-Z]\w*(Error|Exception)): |: can't open file '", re.IGNORECASE
)
#: Matches lines of a wrapper's error that are not a cause: rules, and torchrun's record of the failed rank.
_FRAMING = re.compile(r"^\W*$|^\s*(error_file|exitcode|host|rank|time|traceback) +: ")
_TRACEBACK = re.compile(r"^.*Traceback \(most recent call last\):", re.MULTILINE)
_CAUSED = re.compile(r"the direct cause of the following exception", re.IGNORECASE)
#: Matches the first line after the frames of a traceback: the name of the exception, maybe after a prefix
#: with the rank.
_EXCEPTION = re.compile(r"^(\[\S+\]:?\s?|\S+: )?[A-Za-z_][\w.]*(:|$)", re.MULTILINE)
_ERROR_LINE = re.compile(
    r"error|exception|fatal|failed|panic|killed|bad_alloc|exhausted|memory|\boom\b|in use", re.IGNORECASE
)
_EPILOGUE = re.compile(r"^\s*(aborted|.*core dumped)\W*$", re.IGNORECASE)


def classify(
    status: JobStatus, logs: Mapping[int, str], job: Job, *, resumed: bool = False, used: bool = False
) -> Failure:
    """Classifies the failure of a job.

    Only the last error in the output is used, since the script may have handled earlier errors, such as a
    lack of memory. A process that was killed by SIGKILL, but not by Paceline, was most likely out of memory.

    Args:
        status: Status of the job, which has failed.
        logs: Maps each node or rank to the output of its process.
        job: The parsed job file; its `workload.one_per` determines whether messages mention ranks or nodes.
        resumed: Whether the script was asked to resume and failed before it did another training step.
        used: Whether earlier jobs wrote to the same folders and the script failed before it did another
            training step; then it may have failed because of the files in these folders.
    """
    words = failure_words(status, logs, job)
    failed = _culprit(status, logs)
    printed = "" if failed is None else logs.get(failed.rank, "") or failed.reason
    text = last_error(printed or "\n".join(logs.values()))
    if failed is None or failed.exit_code is None:  # the scheduler's own message is searched, too
        text = "\n".join(filter(None, (status.detail, failed.reason if failed else "", text)))
    error = _shown(text)
    if _MEMORY.search(text):
        kind = FailureKind.OUT_OF_MEMORY
    elif (failed is not None and failed.exit_code in _KILLED) or _KILLED_WORDS.search(text):
        kind, error = FailureKind.OUT_OF_MEMORY, "killed by signal 9, usually the kernel's memory killer"
    elif _PORT.search(text):
        kind = FailureKind.PORT_IN_USE
    elif (resumed or used) and _REFUSED.search(text):
        kind = FailureKind.RESUME_REFUSED
    else:
        kind = FailureKind.CHECKPOINT if resumed else FailureKind.CONFIGURATION
    identity = "\n".join([*_FRAME.findall(printed)[-1:], text])
    return Failure(kind=kind, error=error, words=words, identity=identity)


def failure_words(status: JobStatus, logs: Mapping[int, str], job: Job) -> str:
    """Describes a failure for the user: the process that failed first with its last output, then the others.

    Args:
        status: Status of the job, which has failed, with the exit codes of its processes.
        logs: Maps each node or rank to the output of its process.
        job: The parsed job file; its `workload.one_per` determines whether the text mentions ranks or nodes.
    """
    if not status.failures:
        tail = _tail(next(iter(logs.values()), ""))
        return f"the command failed{': ' + status.detail if status.detail else ''}\n{tail}".strip()
    first, *others = status.failures
    per_rank = job.command.one_per == "rank"
    what = "rank" if per_rank else "node"
    code = "" if first.exit_code is None else f" with exit code {first.exit_code}"
    lines = [f"{what} {first.rank} failed{code}: {first.reason.strip()}"]
    lines += [f"{what} {f.rank}: {f.reason.strip()}" for f in others]
    tail = _tail(logs.get(first.rank, "") or "\n".join(logs.values()))
    if tail and tail not in lines[0]:
        lines.append(f"its last output was\n{tail}")
    return "\n".join(lines)


def last_error(text: str) -> str:
    """Returns the last error in the output of a process; an empty string if nothing was printed.

    If exceptions are chained, this is the last exception together with its direct causes. An error of a
    program that starts the script (torchrun, accelerate), or an error about a lost connection to another
    rank, is returned only if there is no other error.

    Args:
        text: The output of one process.
    """
    text = text[-_SEARCHED_CHARACTERS:]
    starts = [match.start() for match in _TRACEBACK.finditer(text)]
    if not starts:
        return _last_error_line(text)
    blocks = [text[start:end] for start, end in itertools.pairwise([*starts, len(text)])]
    found = len(blocks) - 1
    while found > 0:
        error = _without_frames(blocks[found])
        if _KILLED_WORDS.search(error) or not (_OF_WRAPPER.search(error) or _PEER_LOST.search(error)):
            break
        found -= 1
    only = _without_frames(blocks[0])
    if found == 0 and _OF_WRAPPER.search(only) and not _KILLED_WORDS.search(only):
        # The script printed its error without a traceback, before the traceback of the wrapping program.
        named = [line for line in text[: starts[0]].splitlines() if _OWN_ERROR.search(line)]
        if named:
            return named[-1]
    errors = [_without_frames(blocks[found])]
    while found > 0 and _CAUSED.search(blocks[found - 1]):
        found -= 1
        errors.insert(0, _without_frames(blocks[found]))
    return "\n".join(errors)


def _culprit(status: JobStatus, logs: Mapping[int, str]) -> RankFailure | None:
    """Returns the process that failed first; the other processes were then killed or lost the connection."""
    failures = status.failures
    for failure in failures:
        if failure.exit_code in (*_KILLED, *_ASKED):
            continue
        error = last_error(logs.get(failure.rank, "") or failure.reason)
        if len(failures) == 1 or not _PEER_LOST.search(error):
            return failure
    killed = [failure for failure in failures if failure.exit_code in _KILLED]
    return next(iter([*killed, *failures]), None)


def _without_frames(block: str) -> str:
    """Returns the exception and its message from a traceback, without the frames."""
    _, _, after = block.partition("\n")
    match = _EXCEPTION.search(after)
    return after[match.start() :].strip() if match else after.strip()


def _last_error_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    while lines and _EPILOGUE.match(lines[-1]):
        lines.pop()
    last = lines[-_ERROR_LINES:]
    for place in range(len(last) - 1, -1, -1):
        if _ERROR_LINE.search(last[place]):
            return "\n".join(last[place:])
    return "\n".join(last[-1:])


def _shown(text: str) -> str:
    """Returns the first line of an error that shows its kind, else its first line, shortened if long."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _FRAMING.match(line)]
    named = [
        line for line in lines if any(words.search(line) for words in (_MEMORY, _PORT, _REFUSED, _BROKEN))
    ]
    return next(iter([*named, *lines]), "nothing was printed")[:_SHOWN_CHARACTERS]


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
