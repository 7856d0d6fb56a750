"""Reads options, defaults, environment variables and global variables from the source code of a script."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuner.drafting.parameters import Parameter, plain_name
from tuner.job.workload_code import with_imports

_MOST_BYTES = 2**20
#: Matches source code that imports or uses a parser of command-line options. A script without such a parser
#: is not run with `--help`, since it would start to train.
_PARSES = re.compile(
    r"^\s*(?:import|from)\s+(?:argparse|optparse|getopt|click|typer|fire|absl|hydra|jsonargparse|simple_parsing|tyro"
    r"|docopt|cyclopts|pydantic_settings|configargparse|pyrallis|draccus|plac|tap)\b"
    r"|HfArgumentParser|LightningCLI|ArgumentParser\(|parse_args\(",
    re.MULTILINE,
)
#: Matches function calls by which a script may use a parser that is defined in one of its modules.
_CALLS_PARSER = re.compile(r"\b(\w*parse\w*|get_\w+|\w*(args|options|opts|flags|config|cli)\w*|main)\s*\(")
_OVERRIDES_GLOBALS = re.compile(r"exec\(open\(|globals\(\)(\[|\.update)")
_LOADS = re.compile(
    r"load_state_dict|get_last_checkpoint|restore_checkpoint|load_checkpoint|load_weights|resum(e|ing)\b|\.restore\("
    r"|distributed\.checkpoint|dcp\.load|BackupAndRestore|joblib\.load|pickle\.load|torch\.load"
)
_RESUME_VALUE = re.compile(r"\b(\w+) *== *['\"]resume['\"]")
_SCHEDULES = re.compile(
    r"lr_scheduler|LambdaLR|CosineAnnealing|OneCycle|StepLR|get_\w*schedule|warmup_(steps|ratio)|cosine|optax\.\w*schedule"
    r"|TrainingArguments|lr_decay|decay_lr",
    re.I,
)


@dataclass(frozen=True, kw_only=True)
class SourceCode:
    """Information from the source code of a script and of the modules in its folder.

    Args:
        files: Files that were read; empty if the script is not a Python file.
        options: Command-line options that calls such as `add_argument` define, with their defaults.
        defaults: Maps the names of class fields, in lower case, to their default values.
        bindings: Parameters that gin can set, such as `train.batch_size`.
        variables: Environment variables that the code reads, as parameters.
        constants: Global variables of the script, as parameters.
        text: Source code of all files, joined.
        script: Source code of the script only.
        imports_parser: Whether the script itself imports a parser of command-line options.
    """

    files: tuple[Path, ...] = ()
    options: tuple[Parameter, ...] = ()
    defaults: dict[str, str] = field(default_factory=dict)
    bindings: tuple[Parameter, ...] = ()
    variables: tuple[Parameter, ...] = ()
    constants: tuple[Parameter, ...] = ()
    text: str = ""
    script: str = ""
    imports_parser: bool = False

    @property
    def parses_options(self) -> bool:
        """Whether the script seems to parse options, so it prints help for `--help` and does not train."""
        return self.imports_parser or bool(_CALLS_PARSER.search(self.script) and _PARSES.search(self.text))

    @property
    def overrides_globals(self) -> bool:
        """Whether `--name=value` sets a global variable of the script, as in nanoGPT."""
        return bool(_OVERRIDES_GLOBALS.search(self.text))

    @property
    def loads_state(self) -> bool:
        """Whether the script seems to load a saved training state."""
        return _LOADS.search(self.text) is not None

    @property
    def resumes_by(self) -> str | None:
        """Name of the option that makes the script resume if its value is `resume`; None if there is none."""
        found = _RESUME_VALUE.search(self.text)
        return None if found is None else found[1]

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate seems to follow a schedule."""
        return _SCHEDULES.search(self.text) is not None

    def completed(self, parameters: Sequence[Parameter]) -> list[Parameter]:
        """Returns the given parameters, with unknown default values added from the source code."""
        defined = {name: one for one in self.options for name in (one.name, *one.aliases)}
        found = []
        for one in parameters:
            own = defined.get(one.name)
            if one.default is None and own is not None:
                one = replace(one, default=own.default, place=own.place)
            field_name = one.plain_name.rpartition(".")[2]
            if one.default is None and field_name in self.defaults:
                one = replace(one, default=self.defaults[field_name], place="the fields of its classes")
            found.append(one)
        return found


def read_source(script: Path | None) -> SourceCode:
    """Reads the source code of a script and of the modules in its folder that it imports.

    Args:
        script: Path of the script; None if the script was not found, so there is nothing to read.
    """
    if script is None or script.suffix != ".py":
        return SourceCode()
    script = script.resolve()
    files = [file for file in with_imports(script, package="") if file.stat().st_size <= _MOST_BYTES]
    texts = {file: file.read_text(encoding="utf-8", errors="ignore") for file in files}
    trees = {file: tree for file, text in texts.items() if (tree := _parsed(text)) is not None}
    nodes = [
        (node, f"{file.name} line {getattr(node, 'lineno', 0)}")
        for file in sorted(trees, key=lambda file: file != script)
        for node in ast.walk(trees[file])
    ]
    defaults: dict[str, set[str]] = {}
    for node, _ in nodes:
        if isinstance(node, ast.ClassDef):
            for name, value in _field_defaults(node):
                defaults.setdefault(name, set()).add(value)
    variables = [one for node, place in nodes for one in _variable(node, place)]
    own = trees.get(script)
    return SourceCode(
        files=tuple(files),
        options=tuple(one for node, place in nodes for one in _defined_option(node, place)),
        # Ignore a field if two classes have different defaults for it.
        defaults={name: min(values) for name, values in defaults.items() if len(values) == 1},
        bindings=tuple(one for node, place in nodes for one in _bindings(node, place)),
        variables=tuple({one.name: one for one in reversed(variables)}.values()),
        constants=() if own is None else tuple(_constants_of(own, script)),
        text="\n".join(texts.values()),
        script=texts.get(script, ""),
        # `ast.unparse` removes comments, which may mention a parser.
        imports_parser=own is not None and _PARSES.search(ast.unparse(own)) is not None,
    )


def constants_in(file: Path) -> list[Parameter]:
    """Returns the global variables that a Python file sets; empty if the file cannot be read.

    Args:
        file: Path of the Python file, such as a file of settings.
    """
    try:
        tree = _parsed(file.read_text(encoding="utf-8", errors="ignore"))
    except OSError:
        return []
    return [] if tree is None else list(_constants_of(tree, file))


def _parsed(text: str) -> ast.Module | None:
    try:
        tree = ast.parse(text)
        ast.unparse(tree)  # raises an error here if the code is nested very deeply
    except (SyntaxError, ValueError, RecursionError):
        return None
    return tree


def _defined_option(node: ast.AST, place: str) -> Iterator[Parameter]:
    """Yields the command-line option that a function call defines, if any.

    Examples of such calls are `add_argument("--lr", default=0.1)` and `DEFINE_float("lr", 0.1, "")`.

    Args:
        node: Any node of the syntax tree.
        place: File and line of the node, for the comments of the job file.
    """
    if not isinstance(node, ast.Call):
        return
    function = ast.unparse(node.func).rpartition(".")[2]
    texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    named = {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    if function.upper().startswith("DEFINE_") and texts:
        default = _literal(node.args[1]) if len(node.args) > 1 else named.get("default")
        yield Parameter(name=f"--{texts[0]}", way="option", default=default, place=place)
    names = [text for text in texts if re.fullmatch(r"-{1,2}[A-Za-z][\w.\-]*", text)]
    if names and function in ("add_argument", "add_option", "option", "Option", "Argument", "arg"):
        main = next((name for name in names if name.startswith("--")), names[0])
        action = named.get("action") or ""
        yield Parameter(
            name=main,
            aliases=tuple(name for name in names if name != main),
            way="option",
            default=named.get("default"),
            takes_value=not action.startswith(("store_", "count")) and "is_flag" not in named,
            words=named.get("help") or "",
            place=place,
        )


def _variable(node: ast.AST, place: str) -> Iterator[Parameter]:
    """Yields the environment variable that an expression such as `os.environ["LR"]` reads, if any.

    Args:
        node: Any node of the syntax tree.
        place: File and line of the node, for the comments of the job file.
    """
    name, default = None, None
    if isinstance(node, ast.Call) and node.args:
        if ast.unparse(node.func).endswith(("environ.get", "getenv", "environ.setdefault")):
            name, default = node.args[0], next(iter(node.args[1:]), None)
    elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
        name = node.slice
    text = _literal(name)
    if text is not None and not text.startswith("PACELINE_"):
        yield Parameter(name=text, way="variable", default=_literal(default), place=place)


def _field_defaults(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yields the name and default of each class field, such as `lr: float = 0.1`."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            value = item.value
            if isinstance(value, ast.Call):
                value = next((k.value for k in value.keywords if k.arg == "default"), None)
            text = _literal(value)
            if text is not None:
                yield plain_name(item.target.id), text


def _bindings(node: ast.AST, place: str) -> Iterator[Parameter]:
    """Yields the parameters of a function or class with the decorator `gin.configurable`, which gin can set.

    Args:
        node: Any node of the syntax tree.
        place: File and line of the node, for the comments of the job file.
    """
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return
    if not any("gin.configurable" in ast.unparse(one) for one in node.decorator_list):
        return
    body = node.body if isinstance(node, ast.ClassDef) else [node]
    for function in body:
        if not isinstance(function, ast.FunctionDef) or (
            function is not node and function.name != "__init__"
        ):
            continue
        arguments = function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
        pairs = [
            *zip(positional, [*defaults, *arguments.defaults], strict=True),
            *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
        ]
        for argument, default in pairs:
            if argument.arg != "self":
                name = f"{node.name}.{argument.arg}"
                yield Parameter(name=name, way="gin", default=_literal(default), place=place)


def _constants_of(tree: ast.Module, file: Path) -> Iterator[Parameter]:
    """Yields the global variables that a module sets to literal values, as parameters.

    Args:
        tree: Syntax tree of the module.
        file: Path of the module, for the comments of the job file.
    """
    for node in tree.body:
        target: Any = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        text = _literal(getattr(node, "value", None))
        if isinstance(target, ast.Name) and text is not None:
            place = f"{file.name} line {node.lineno}"
            yield Parameter(name=target.id, way="global", default=text, place=place)


def _literal(node: ast.AST | None) -> str | None:
    """Returns the value of a literal expression as text; None for other expressions."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Path") and len(node.args) == 1:
        node = node.args[0]
    if node is None:
        return None
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return str(value) if isinstance(value, bool | int | float | str) else None
