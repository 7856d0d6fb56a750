"""Samples docstrings and messages of the product, for a reader who marks each as clear or unclear.

    python -m benchmarks.plain_english [--size 100] [--seed 0]

Half of the sample are docstrings of modules, classes and functions. The other half are messages: strings of
five words or more outside of docstrings. Lists of words (`"...".split()`), regular expressions and SQL are no
messages. The reader must not know the code, and sees only the text and where it stands. At least 95 of 100
should be clear.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("search_spaces", "tuner", "storage", "cli.py", "paceline.py", "paceline_client.py")
_FEWEST_WORDS = 5
#: Functions and methods whose texts are no messages: word lists, regular expressions, SQL.
_NO_MESSAGE = {"split", "compile", "search", "match", "fullmatch", "execute", "exec_driver_sql", "text"}


@dataclass(frozen=True, kw_only=True)
class Text:
    """A docstring or a message.

    Args:
        place: File and line, and the name of what a docstring describes.
        text: As it is written; `{...}` stands for values.
    """

    place: str
    text: str


def product_files(root: Path = ROOT) -> list[Path]:
    """The product's source files, sorted."""
    paths = [root / name for name in PRODUCT]
    found = [file for path in paths for file in ([path] if path.suffix == ".py" else path.rglob("*.py"))]
    return sorted(file for file in found if file.is_file())


def docstrings(tree: ast.Module, file: str) -> Iterator[Text]:
    """Docstrings of a module and of all classes and functions in it."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if text:
            name = "" if isinstance(node, ast.Module) else f" {node.name}"
            yield Text(place=f"{file}:{getattr(node, 'lineno', 1)}{name}", text=text)


def messages(tree: ast.Module, file: str) -> Iterator[Text]:
    """Strings of five words or more that are no docstrings; parts of an f-string count as one."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in _NO_MESSAGE:
                skipped.update(
                    part for part in ast.walk(node) if isinstance(part, ast.Constant | ast.JoinedStr)
                )
        if node in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            skipped.update(ast.walk(node))
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{...}" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if len([word for word in text.split() if word.isalpha()]) >= _FEWEST_WORDS:
            yield Text(place=f"{file}:{getattr(node, 'lineno', 1)}", text=text)


def sample(size: int, seed: int, root: Path = ROOT) -> list[Text]:
    """A seeded sample: half docstrings, half messages.

    Args:
        size: Number of texts.
        seed: Of the sample.
        root: Folder of the project.
    """
    trees = {str(file.relative_to(root)): ast.parse(file.read_text()) for file in product_files(root)}
    rng = random.Random(seed)
    found = []
    for kind, number in ((docstrings, size - size // 2), (messages, size // 2)):
        texts = [text for file, tree in trees.items() for text in kind(tree, file)]
        found += rng.sample(texts, min(number, len(texts)))
    return found


def main(
    size: Annotated[int, typer.Option(help="Number of texts.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
) -> None:
    """Prints a numbered sample."""
    for number, text in enumerate(sample(size, seed), start=1):
        typer.echo(f"{number}. {text.place}\n    " + text.text.replace("\n", "\n    ") + "\n")


if __name__ == "__main__":
    typer.run(main)
