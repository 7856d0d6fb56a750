"""Classifies failures of a command by the exit codes of its processes and the last error in its output."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuner.job import Job
from tuner.launchers import JobStatus, RankFailure

_LAST_LINES = 20
#: Characters at the end of an output that are searched for its last error.
_SEARCHED_CHARACTERS = 2**16
#: Lines at the end of an output without a traceback that are searched for an error.
_ERROR_LINES = 3
_SHOWN_CHARACTERS = 200
#: Exit codes of processes that got SIGKILL and SIGTERM, directly and through a shell.
_KILLED, _ASKED = (-9, 137), (-15, 143)


class FailureKind(StrEnum):
    """Why a command failed."""

    OUT_OF_MEMORY = "out of memory"
    PORT_IN_USE = "port in use"
    """A fault of the infrastructure: the same command may succeed a moment later."""
    CHECKPOINT = "checkpoint"
    """The script was asked to resume and failed before it trained any further."""
    RESUME_REFUSED = "resume refused"
    """The script refuses to start in a folder that it used before, or refuses to resume."""
    CONFIGURATION = "configuration"
    """Any other failure: the same command would fail again."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a command failed.

    Args:
        kind: The class of the failure.
        error: The line of the output that names the error.
        words: Exit codes and the last output, several lines.
        identity: The whole error and the line of the script that raised it; equal failures have the same.
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
#: Errors that no other configuration avoids: a file or module is missing, or the command line is wrong.
_BROKEN = re.compile(
    r"FileNotFoundError|ModuleNotFoundError|No such file|unrecognized arguments|command not found"
)
_FRAME = re.compile(r'File "[^"]+", line \d+')
#: Errors of a process that lost its peer; the error of the peer is the cause.
_PEER_LOST = re.compile(
    r"connection (was )?(closed|reset|refused|aborted)|broken pipe|remote process exited|\bpeer\b"
    r"|DistBackendError|SIGTERM|Socket Timeout",
    re.IGNORECASE,
)
#: Errors of a program that started the script; the error of the script comes before.
_OF_WRAPPER = re.compile(r"\b(ChildFailedError|CalledProcessError|SignalException)\b")
#: Errors without a traceback, such as `train.py: error: unrecognized arguments`.
_OWN_ERROR = re.compile(r"^(\[\S+\]:?\s?)?(\S+: )?(error|fatal|[A-Z]\w*(Error|Exception)): ", re.IGNORECASE)
_TRACEBACK = re.compile(r"^.*Traceback \(most recent call last\):", re.MULTILINE)
_CAUSED = re.compile(r"the direct cause of the following exception", re.IGNORECASE)
#: The first line after the frames of a traceback: the name of the exception, maybe after a prefix of a rank.
_EXCEPTION = re.compile(r"^(\[\S+\]:?\s?|\S+: )?[A-Za-z_][\w.]*(:|$)", re.MULTILINE)
_ERROR_LINE = re.compile(
    r"error|exception|fatal|failed|panic|killed|bad_alloc|exhausted|memory|\boom\b|in use", re.IGNORECASE
)
_EPILOGUE = re.compile(r"^\s*(aborted|.*core dumped)\W*$", re.IGNORECASE)


def classify(
    status: JobStatus, logs: Mapping[int, str], job: Job, *, resumed: bool = False, used: bool = False
) -> Failure:
    """Classifies the failure of a job.

    Only the last error counts: the script may have survived earlier messages about memory. A process that got
    SIGKILL, but not from Paceline, was most likely out of memory.

    Args:
        status: The status of the job.
        logs: The output of each process, by node or rank.
        job: The job file.
        resumed: Whether the script was asked to resume and failed before it trained any further.
        used: Whether its folders were used before and it failed before it trained any further.
    """
    words = failure_words(status, logs, job)
    failed = _culprit(status, logs)
    printed = "" if failed is None else logs.get(failed.rank, "") or failed.reason
    text = last_error(printed or "\n".join(logs.values()))
    if failed is None or failed.exit_code is None:  # the message of the scheduler backend counts too
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
    """Describes the process that failed first, with its exit code and last output, and how the others ended.

    Args:
        status: The status of the job.
        logs: The output of each process, by node or rank.
        job: The job file.
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
    """The last error in an output and the lines after it; empty if there is none.

    Of chained exceptions this is the last one with its direct cause. An error of a program that started the
    script (torchrun, accelerate), or an error about a lost rank, counts only if there is no other.

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
        # The script printed no traceback: the message of its parser is before that of the wrapper.
        named = [line for line in text[: starts[0]].splitlines() if _OWN_ERROR.match(line)]
        if named:
            return named[-1]
    errors = [_without_frames(blocks[found])]
    while found > 0 and _CAUSED.search(blocks[found - 1]):
        found -= 1
        errors.insert(0, _without_frames(blocks[found]))
    return "\n".join(errors)


def _culprit(status: JobStatus, logs: Mapping[int, str]) -> RankFailure | None:
    """The process whose failure ended the job: the others are killed, or fail since they lost it."""
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
    """The exception and its message at the end of a traceback."""
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
    """The line that names the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [
        line for line in lines if any(words.search(line) for words in (_MEMORY, _PORT, _REFUSED, _BROKEN))
    ]
    return next(iter([*named, *lines]), "nothing was printed")[:_SHOWN_CHARACTERS]


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
