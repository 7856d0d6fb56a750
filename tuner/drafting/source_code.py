"""What the source of a script says of its options: defaults, environment variables, global variables."""

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
#: What reads options in some way; without any of it a script is not asked for its help.
_PARSES = re.compile(
    r"^\s*(?:import|from)\s+(?:argparse|optparse|getopt|click|typer|fire|absl|hydra|jsonargparse|simple_parsing|tyro"
    r"|docopt|cyclopts|pydantic_settings|configargparse|pyrallis|draccus|plac|tap)\b"
    r"|HfArgumentParser|LightningCLI|ArgumentParser\(|parse_args\(",
    re.MULTILINE,
)
#: Calls by which a script gets its options from a module of its own.
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
    """What was found in the source of a script and of the modules beside it.

    Args:
        files: The files that were read; empty if there is no Python file.
        options: Options that calls such as `add_argument` define, with their defaults.
        defaults: Defaults of the fields of classes, by plain name.
        bindings: Parameters that gin can bind, such as `train.batch_size`.
        variables: Environment variables that it reads.
        constants: Variables that are set once at the top of the script itself.
        text: All of it.
        script: The script alone.
        imports_parser: Whether the script itself imports a parser of options.
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
        """Whether the script seems to read a command line, so that `--help` does not start a training."""
        return self.imports_parser or bool(_CALLS_PARSER.search(self.script) and _PARSES.search(self.text))

    @property
    def overrides_globals(self) -> bool:
        """Whether `--name=value` sets a global variable of the script, as nanoGPT's configurator does."""
        return bool(_OVERRIDES_GLOBALS.search(self.text))

    @property
    def loads_state(self) -> bool:
        """Whether it seems to load the state of a training."""
        return _LOADS.search(self.text) is not None

    @property
    def resumes_by(self) -> str | None:
        """Name of an option that resumes if its value is `resume`; None if there is none."""
        found = _RESUME_VALUE.search(self.text)
        return None if found is None else found[1]

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate seems to follow a schedule."""
        return _SCHEDULES.search(self.text) is not None

    def completed(self, parameters: Sequence[Parameter]) -> list[Parameter]:
        """Parameters with the defaults that only the source states."""
        defined = {name: one for one in self.options for name in (one.name, *one.aliases)}
        found = []
        for one in parameters:
            own = defined.get(one.name)
            default = one.default or (own.default if own else None)
            place = own.place if own is not None and one.default is None else one.place
            if default is None:
                default = self.defaults.get(one.plain_name.rpartition(".")[2])
                place = "the fields of its classes" if default is not None else place
            found.append(replace(one, default=default, place=place))
        return found


def read_source(script: Path | None) -> SourceCode:
    """Reads a script and what it imports from its own folder.

    Args:
        script: Its file; None if the command names none.
    """
    if script is None or script.suffix != ".py":
        return SourceCode()
    files = [
        file for file in with_imports(script.resolve(), package="") if file.stat().st_size <= _MOST_BYTES
    ]
    options: list[Parameter] = []
    variables: list[Parameter] = []
    bindings: list[Parameter] = []
    constants: list[Parameter] = []
    defaults: dict[str, set[str]] = {}
    texts = []
    for file in sorted(files, key=lambda file: file != script.resolve()):
        text = file.read_text(encoding="utf-8", errors="ignore")
        texts.append(text)
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                options += _defined_option(node, file)
            variables += _variable(node, file)
            if isinstance(node, ast.FunctionDef):
                found = dict(_parameter_defaults(node))
                bindings += _bindings(node, node.name, found, file)
            elif isinstance(node, ast.ClassDef):
                for name, value in _field_defaults(node):
                    defaults.setdefault(name, set()).add(value)
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                        bindings += _bindings(node, node.name, dict(_parameter_defaults(method)), file)
        if file == script.resolve():
            constants += constants_of(tree, file)
    return SourceCode(
        files=tuple(files),
        options=tuple(options),
        # What two classes define differently says nothing.
        defaults={name: min(values) for name, values in defaults.items() if len(values) == 1},
        bindings=tuple(bindings),
        variables=tuple({one.name: one for one in reversed(variables)}.values()),
        constants=tuple(constants),
        text="\n".join(texts),
        script=texts[0] if texts else "",
        imports_parser=bool(texts) and _imports_parser(texts[0]),
    )


def _imports_parser(text: str) -> bool:
    """Whether code, not a comment, imports or names a parser of options."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    try:
        return _PARSES.search(ast.unparse(tree)) is not None
    except RecursionError:
        return False


def _defined_option(call: ast.Call, file: Path) -> Iterator[Parameter]:
    """The option that a call defines: `add_argument("--lr", default=0.1)`, `DEFINE_float("lr", 0.1, "")`."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    place = f"{file.name} line {call.lineno}"
    if function.upper().startswith("DEFINE_") and texts:
        default = _literal(call.args[1]) if len(call.args) > 1 else _literal(named.get("default"))
        yield Parameter(name=f"--{texts[0]}", way="option", default=default, place=place)
        return
    names = [text for text in texts if re.fullmatch(r"-{1,2}[A-Za-z][\w.\-]*", text)]
    if not names or function not in ("add_argument", "add_option", "option", "Option", "Argument", "arg"):
        return
    main = next((name for name in names if name.startswith("--")), names[0])
    action = _literal(named.get("action")) or ""
    yield Parameter(
        name=main,
        aliases=tuple(name for name in names if name != main),
        way="option",
        default=_literal(named.get("default")),
        takes_value=not action.startswith(("store_", "count")) and "is_flag" not in named,
        words=_literal(named.get("help")) or "",
        place=place,
    )


def _variable(node: ast.AST, file: Path) -> Iterator[Parameter]:
    """The environment variable that an expression reads."""
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        read = ast.unparse(node.func)
        if not read.endswith(("environ.get", "getenv", "environ.setdefault")):
            return
        name, default = node.args[0].value, _literal(node.args[1]) if len(node.args) > 1 else None
    elif (
        isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and ast.unparse(node.value).endswith("environ")
    ):
        name, default = node.slice.value, None
    else:
        return
    if isinstance(name, str) and not name.startswith("PACELINE_"):
        place = f"{file.name} line {getattr(node, 'lineno', 0)}"
        yield Parameter(name=name, way="variable", default=default, place=place)


def _parameter_defaults(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [
        *zip(reversed(positional), reversed(arguments.defaults), strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        text = _literal(default)
        if text is not None:
            yield plain_name(argument.arg), text


def _field_defaults(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        value = item.value
        if isinstance(value, ast.Call):
            value = next((k.value for k in value.keywords if k.arg == "default"), None)
        text = _literal(value)
        if text is not None:
            yield plain_name(item.target.id), text


def _bindings(
    node: ast.FunctionDef | ast.ClassDef, name: str, defaults: dict[str, str], file: Path
) -> Iterator[Parameter]:
    """What gin can bind of a function or class."""
    if not any("gin.configurable" in ast.unparse(one) for one in node.decorator_list):
        return
    arguments = node.args if isinstance(node, ast.FunctionDef) else None
    names = set(defaults)
    if arguments is not None:
        names |= {one.arg for one in (*arguments.args, *arguments.kwonlyargs)}
    for argument in sorted(names):
        yield Parameter(
            name=f"{name}.{argument}",
            way="gin",
            default=defaults.get(argument),
            place=f"{file.name} line {node.lineno}",
        )


def constants_in(file: Path) -> list[Parameter]:
    """Variables that a Python file sets at its top; none if it cannot be read.

    Args:
        file: The file, such as one of settings.
    """
    try:
        return list(constants_of(ast.parse(file.read_text(encoding="utf-8", errors="ignore")), file))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []


def constants_of(tree: ast.Module, file: Path) -> Iterator[Parameter]:
    """Variables that a module sets at its top."""
    for node in tree.body:
        target: Any = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        if isinstance(target, ast.Name):
            text = _literal(getattr(node, "value", None))
            if text is not None:
                place = f"{file.name} line {node.lineno}"
                yield Parameter(name=target.id, way="global", default=text, place=place)


def _literal(node: ast.AST | None) -> str | None:
    """A literal's value as text; None for everything else, and for None itself."""
    if node is None:
        return None
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Path") and len(node.args) == 1:
        node = node.args[0]
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return str(value) if isinstance(value, bool | int | float | str) else None
