"""The sample of docstrings and messages: seeded, half of each kind, f-strings as one text."""

from __future__ import annotations

import ast
from pathlib import Path

from benchmarks.plain_english import docstrings, messages, sample

SOURCE = '''
"""A module."""

def f(path):
    """A function."""
    raise ValueError(f"{path} cannot be read: give the path of a file")
    x = "only three words"

WORDS = "these are words of a list".split()
ERROR = re.compile("permission denied|no such file or folder")
'''


def test_docstrings_and_messages_are_found() -> None:
    tree = ast.parse(SOURCE)
    assert [text.text for text in docstrings(tree, "a.py")] == ["A module.", "A function."]
    (found,) = messages(tree, "a.py")
    assert found.text == "{...} cannot be read: give the path of a file"
    assert found.place == "a.py:6"


def test_a_sample_depends_on_its_seed_alone(tmp_path: Path) -> None:
    (tmp_path / "tuner").mkdir()
    for number in range(40):
        (tmp_path / "tuner" / f"{number}.py").write_text(SOURCE)
    first = sample(20, 0, tmp_path)
    assert first == sample(20, 0, tmp_path)
    assert first != sample(20, 1, tmp_path)
    assert len({text.place for text in first}) == 20
