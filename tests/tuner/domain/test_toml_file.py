from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuner.domain.errors import JobError
from tuner.domain.toml_file import read_toml


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a = 1\nseed = " + "9" * 10_000,
            "line 2: seed = 9{40}\\.\\.\\.: integers must be from",
        ),
        (
            "seed = 0x" + "f" * 20,
            "seed = 1208925819614629174706175: integers must be from",
        ),
        ("seed = 0x" + "f" * 5_000, "seed = 0xf{38}\\.\\.\\.: integers must be from"),
        (
            "[a]\nb = [-9223372036854775809]",
            r"a\.b\[0\] = -9223372036854775809: integers must be from",
        ),
        ("seed = " + "[" * 50_000, "at most 32 levels are allowed"),
        ("a = " + "[" * 40 + "]" * 40, r"a\[0\].*at most 32 levels are allowed"),
        (".".join("a" * 100_000) + " = 1", "line 1, 'a.a.a.*: has 99,999 dots, but at most 300 are allowed"),
        ("\n" + ".".join(["'a b'"] * 302) + " = 1", "line 2, .*: has 301 dots, but at most 300 are allowed"),
        (".".join("a" * 301) + " = 1", "at most 32 levels are allowed"),
        ("a = 1\n#" + "x" * 256 * 1024, "is larger than 256 KiB, the size limit of TOML files. Name"),
        ('[a]\nb = ["\\u0000"]', r"a\.b\[0\] contains a NUL character; remove it"),
        ("a = ?", "is not valid TOML: .*line 1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_text_beyond_a_limit_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(JobError, match=rf"^{path}: .*{words}"):
        read_toml(path)


def test_the_smallest_and_the_largest_integer_are_read(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text("a = 9223372036854775807\nb = -9223372036854775808")
    assert read_toml(path) == {"a": 2**63 - 1, "b": -(2**63)}


def test_pipes_and_devices_are_refused_without_a_read(tmp_path: Path) -> None:
    pipe = tmp_path / "job.toml"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(JobError, match=rf"^{path}: is a pipe, a socket or a device. Save the text"):
            read_toml(path)


def test_a_huge_file_is_read_in_part_only(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(JobError, match="is larger than 256 KiB"):
        read_toml(path)
