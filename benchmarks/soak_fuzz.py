"""Feeds random and mutated inputs to the places where data of users enter.

Each target (`benchmarks.soak_fuzz_targets`) gets inputs in turn. For each input, the fuzzer checks that there
is no traceback, that it takes less than 20 seconds and 2 GiB, that no file outside its folder is changed, and
that the message names the file, the key and a remedy. An input that breaks a rule is shortened while it still
breaks it, and stored in the result file.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.soak_fuzz_guard import files_outside, limited_memory
from benchmarks.soak_fuzz_targets import TARGETS, Target
from benchmarks.soak_record import SoakRecord, quantile

_ROOT = Path(__file__).parents[1]
_LIMIT_SECONDS = 20.0
_MOST_INPUTS = 2_000
#: Inputs stored for one kind of broken invariant.
_MOST_ALIKE = 2
_SHORTENING_SECONDS = 5.0
_LONGEST_STORED = 1_500


class TookTooLongError(BaseException):
    """An input was not dealt with in time; no handler of the product catches it."""


def run_fuzz(record: SoakRecord, *, num_inputs: int = _MOST_INPUTS, num_seeds: int = 2) -> None:
    """Feeds inputs to every target in turn, until the time is up.

    Args:
        record: Receives the counts, the figures and the broken rules.
        num_inputs: Number of inputs for each seed.
        num_seeds: Number of seeds, counted from the seed of the record.
    """
    seconds: dict[str, list[float]] = {}
    alike: dict[tuple[str, ...], int] = {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with tempfile.TemporaryDirectory(prefix="soak-fuzz-") as name, _quiet(), limited_memory():
            targets: list[Target] = []
            for number, made in enumerate(TARGETS):
                folder = Path(name) / str(number)
                folder.mkdir()
                targets.append(made(folder))
            turns = [target for target in targets for _ in range(target.weight)]
            for number in range(num_inputs * num_seeds):
                if record.is_over:
                    break
                target = turns[number % len(turns)]
                began = time.monotonic()
                seed, iteration = record.seed + number // num_inputs, number % num_inputs
                _fuzz(record, target, seed, iteration, alike)
                seconds.setdefault(target.name, []).append(time.monotonic() - began)
                record.progress()
    finally:
        # The command line sets a handler of its own.
        signal.signal(signal.SIGTERM, handler)
    record.figures = {
        name: {"inputs": len(v), "median_seconds": quantile(v, 0.5), "max_seconds": quantile(v, 1.0)}
        for name, v in seconds.items()
    }
    record.figures["inputs_by_seed"] = num_inputs
    record.figures["seeds"] = [record.seed + number for number in range(num_seeds)]
    record.figures["kinds_of_broken_invariants"] = len(alike)


def _fuzz(
    record: SoakRecord, target: Target, seed: int, number: int, alike: dict[tuple[str, ...], int]
) -> None:
    data = target.make(random.Random(f"{seed}-{number}"))
    record.counts[target.name] += 1
    for invariant, facts in problems_of(target, data):
        kind = (target.name, invariant, str(facts.get("at", "")))
        alike[kind] = alike.get(kind, 0) + 1
        if alike[kind] > _MOST_ALIKE:
            record.counts["broken"] += 1
            continue
        stored = {"input": _stored(shortened(target, data, kind))} if target.is_short else {}
        record.breaks(
            invariant,
            target=target.name,
            of_seed=seed,
            iteration=number,
            **facts,
            input_bytes=len(data),
            **stored,
        )


def problems_of(target: Target, data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """What an input breaks, an exception and a hang included."""
    try:
        for limit in (_LIMIT_SECONDS, 3 * _LIMIT_SECONDS):
            # Twice: other programs may stop this one for some seconds, but not at the same input again.
            with (
                contextlib.suppress(TookTooLongError),
                contextlib.chdir(target.folder),
                files_outside(target.folder) as outside,
                time_limit(limit),
            ):
                found = list(target.problems(data))
                if outside:
                    found.append(("no file outside the case's folder is changed", {"files": outside[:5]}))
                return found
        return [("every input is dealt with in time", {"limit_seconds": _LIMIT_SECONDS})]
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [f for f in where if Path(f.filename).is_relative_to(_ROOT) and "packages" not in f.filename]
        last = (ours or where)[-1]
        at = f"{Path(last.filename).name}:{last.name}: {type(error).__name__}"
        return [("no exception but the product's own errors", {"at": at, "error": str(error)[:500]})]


def shortened(target: Target, data: bytes, kind: tuple[str, ...]) -> bytes:
    """The input with parts left out, as long as it breaks the same invariant."""
    deadline = time.monotonic() + _SHORTENING_SECONDS
    size = len(data) // 2
    while size >= 1 and time.monotonic() < deadline:
        start = 0
        while start < len(data) and time.monotonic() < deadline:
            shorter = data[:start] + data[start + size :]
            found = problems_of(target, shorter)
            if any((target.name, name, str(facts.get("at", ""))) == kind for name, facts in found):
                data = shorter
            else:
                start += size
        size //= 2
    return data


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `TookTooLongError` in the main thread where the block takes longer."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _stored(data: bytes) -> str:
    """The input as text; base64 where it is none."""
    part = data[:_LONGEST_STORED]
    try:
        return part.decode("ascii")
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(part).decode()
