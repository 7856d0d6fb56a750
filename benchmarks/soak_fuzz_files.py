"""Job files of hostile sizes, texts and kinds, and output paths that cannot be written, as a target."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.soak_fuzz_guard import names_a_remedy
from benchmarks.soak_fuzz_target import EXAMPLES, Problem, Target, call_cli

_LONG = "long" * 75
_COMMANDS = ("status", "trials", "report", "check", "record")


class HostileFiles(Target):
    """Job files and paths that no user writes, each through a command that reads or writes them."""

    name = "hostile file"
    weight = 3
    is_short = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for script in EXAMPLES.glob("numpy_script.*"):
            shutil.copy(script, folder)
        self._valid = (folder / "numpy_script.toml").read_text()
        (folder / "a-file").touch()

    def make(self, rng: random.Random) -> bytes:
        makes = (_text, _text, _kind, _output, _value)
        return json.dumps(rng.choice(makes)(rng)).encode()

    def problems(self, data: bytes) -> Iterator[Problem]:
        case = json.loads(data)
        path = self.folder / "job.toml"
        text = case.get("text", self._valid)
        if "value" in case:
            key, value = case["value"]
            lines = [line for line in text.splitlines() if line.split(" ")[0] != key]
            table = lines.index(case["table"]) if case["table"] else -1
            lines.insert(table + 1, f"{key} = {value}")
            text = "\n".join(lines)
        try:
            _place(path, case.get("kind", "file"), text)
            code, _, err = call_cli(*case["command"])
        finally:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
        facts = {"case": {**case, "text": text[:200]}, "exit_code": code, "stderr": err[-1000:]}
        if code not in case["codes"] or "Traceback" in err:
            yield "a hostile file is refused with its exit code", facts
        for word in case["names"]:
            if word not in err:
                yield "the message names the file and the key", {**facts, "word": word}
        if code and not names_a_remedy(err):
            yield "the message names a remedy", facts
        if len(err) > 22_000:
            yield "the message is short enough to read", {**facts, "length": len(err)}


def _case(rng: random.Random, **facts: Any) -> dict[str, Any]:
    command = [rng.choice(_COMMANDS), "job.toml"]
    return {"command": command, "codes": [2], "names": ["job.toml"], **facts}


def _text(rng: random.Random) -> dict[str, Any]:
    size = rng.choice((30, 400, 5_000, 50_000))
    key = rng.choice(("seed", "name", "\u00e9", "goal.target", "workload"))
    quoted = key if key.isascii() else f'"{key}"'
    texts: dict[str, Callable[[], str]] = {
        "number": lambda: f"{quoted} = {rng.choice(('', '-', '0x1'))}{'9' * size}",
        "nesting": lambda: f"{quoted} = " + "[" * size + "]" * rng.choice((0, size)),
        "inline tables": lambda: f"{quoted} = " + "{a = " * size + "1" + "}" * size,
        "dotted key": lambda: ".".join(["a"] * size * 2) + " = 1",
        "dotted table": lambda: "[" + ".".join(["'a'"] * size) + "]",
        "unknown keys": lambda: "\n".join(f"k{number} = 1" for number in range(min(size, 20_000))),
        "long string": lambda: f"{quoted} = '{'x' * 4 * size}'",
        "long key": lambda: "x" * size + " = 1",
        "NUL": lambda: f'{quoted} = "\\u0000"',
        "many tables": lambda: "\n".join(f"[t{number}.a.b]" for number in range(size // 5)),
        "same table": lambda: "[a]\n" * size,
        "comments": lambda: "#" + "." * size + "\n" * size * 5,
        "marks": lambda: "\ufeff\u202e\u0000\r" * size,
    }
    return _case(rng, text=texts[rng.choice(list(texts))]())


def _value(rng: random.Random) -> dict[str, Any]:
    table, key = rng.choice(
        (
            ("", "seed"),
            ("[space]", "batch_size"),
            ("[space]", "learning_rate"),
            ("[baseline]", "batch_size"),
            ("[baseline]", "learning_rate"),
            ("[goal]", "target"),
            ("[goal]", "consecutive_scores"),
            ("[budget]", "time"),
            ("[budget]", "probes"),
        )
    )
    value = rng.choice(
        (
            str(2**63),
            str(-(2**63)),
            "1" + "0" * 400,
            "-5e-324",
            "1e400",
            "nan",
            "-inf",
            '"9e999s"',
            "[]",
            "[[[]]]",
            "{low = 5e-324, high = 1e400}",
            "{low = 1, high = 2, levels_per_decade = 1000000000}",
            "1979-05-27T07:32:00Z",
            '"' + "x" * 20_000 + '"',
            "[" + "0.1, 1, " * 2_000 + "]",
        )
    )
    return _case(
        rng,
        command=["status", "job.toml"],
        value=[key, value],
        table=table,
        codes=[2, 3],
        names=["job.toml", key],
    )


def _kind(rng: random.Random) -> dict[str, Any]:
    kinds = ("pipe", "folder", "loop", "zeros", "full", "huge", "absent", "dangling", "empty", "socketless")
    kind = rng.choice(kinds)
    if kind == "socketless":
        return _case(rng, kind="absent", command=["status", f"{_LONG}.toml"], names=[_LONG])
    return _case(rng, kind=kind)


def _output(rng: random.Random) -> dict[str, Any]:
    path = rng.choice((_LONG, f"{_LONG}/{_LONG}", "a-file/x", "x" * 5_000))
    # The paths are checked before or after the study is found, so a missing study is an answer, too.
    commands = (
        ("init", path),
        ("init", "--example", "own_script", f"{path}/job.toml"),
        ("report", "job.toml", "--output", path),
        ("record", "job.toml", "--output", path),
        ("export", "job.toml", "--target", "env", "--output", path),
        ("status", "job.toml", "--storage", f"sqlite:///{path}"),
        ("import-runs", "job.toml", "--from", path),
        ("import-runs", "job.toml", "--from", ".", "--mapping", path),
        ("status", path),
    )
    return _case(rng, command=list(rng.choice(commands)), codes=[2, 6], names=[])


def _place(path: Path, kind: str, text: str) -> None:
    if kind == "file":
        path.write_text(text)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(100 * 2**20)
    elif kind == "empty":
        path.touch()
    elif kind != "absent":
        targets = {"loop": "job.toml", "zeros": "/dev/zero", "full": "/dev/full", "dangling": "nowhere"}
        path.symlink_to(targets[kind])
