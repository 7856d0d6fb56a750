"""Drafts the command template of a job: replaces values in the user's command by template variables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from tuner.drafting.command_line import CommandLine, braced
from tuner.drafting.config_files import ConfigFile
from tuner.drafting.parameters import STATE_FILE, Parameter, Role, number_of, plain_name
from tuner.drafting.source_code import SourceCode

_GIN = re.compile(r"--gin([_.-]?(bindings?|params?))?")
_STATE = re.compile(
    r"\.(pt|pth|ckpt|npz|pkl|pickle|tar|msgpack|keras|joblib|distcp)$|(^|/)checkpoint-\d+$|\.weights\.h5$"
    r"|(^|/)(checkpoints?|ckpts?|backup|snapshots?)/"
)
#: The job file raises the script's limit of epochs or steps by this factor, because some configurations need
#: more steps to reach the target.
_LIMIT_FACTOR = 10


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A training command with its parameters and the training state that its script saves.

    Args:
        line: The parsed command.
        source: Information from the source code of the script, such as whether it can load a saved state.
        parameters: All parameters of the script that were found.
        roles: Maps each role (what a parameter is used for), such as `batch_size`, to the parameter.
        files: Configuration files among the arguments of the command.
        saved: Path of the saved state relative to the path to save to, with `*` in place of numbers; `.` if
            the state is saved at exactly that path; empty if nothing was saved.
        needs_folder: Whether the folder to save to must exist before the script starts.
    """

    line: CommandLine
    source: SourceCode
    parameters: tuple[Parameter, ...] = ()
    roles: Mapping[Role, Parameter] = field(default_factory=dict)
    files: tuple[ConfigFile, ...] = ()
    saved: str = ""
    needs_folder: bool = False

    @property
    def num_ranks(self) -> int:
        """Number of processes that the command starts."""
        return self.line.num_ranks or 1

    def stated(self, role: Role) -> tuple[str | None, str]:
        """Returns the present value of the parameter that has the given role.

        Args:
            role: What the parameter is used for, such as `batch_size`.

        Returns:
            The value as text (None if unknown), and a description of where it was found, for the comments of
            the job file.
        """
        parameter = self.roles.get(role)
        if parameter is None:
            return None, ""
        given = given_value(self.line, parameter)
        if given is not None:
            return given, "your command"
        return parameter.default, f"default in {parameter.place}"

    @property
    def batch_is_per_rank(self) -> bool:
        """Whether the script's batch-size parameter is the batch size of one rank, not of all ranks."""
        parameter = self.roles.get("batch_size")
        if parameter is None or self.num_ranks == 1:
            return False
        return parameter.is_per_rank is not False

    @property
    def batch_size(self) -> int | None:
        """Batch size over all ranks that the command or a default of the script sets; None if unknown."""
        number = number_of(self.stated("batch_size")[0])
        if number is None or number != int(number):
            return None
        return int(number) * (self.num_ranks if self.batch_is_per_rank else 1)

    @property
    def learning_rate(self) -> float | None:
        """Learning rate that the command or a default of the script sets; None if unknown."""
        return number_of(self.stated("learning_rate")[0])

    @property
    def saves_to(self) -> Role | None:
        """Role of the parameter that sets the path to save to: `save` or `output`.

        None if no parameter sets this path.
        """
        return "save" if "save" in self.roles else "output" if "output" in self.roles else None

    @property
    def saves_to_file(self) -> bool:
        """Whether the training state is saved to one file.

        This is known after a short run of the command. Before that run, it is guessed from the path to save
        to, as the command or a default of the script sets it.
        """
        if self.saved:
            return self.saved == "."
        role = self.saves_to
        text = (self.stated(role)[0] or "") if role is not None else ""
        return bool(STATE_FILE.search(text))

    @property
    def resumes_by_itself(self) -> bool:
        """Whether the script saves and loads a training state without having an option to resume."""
        return "resume" not in self.roles and self.saves_to is not None and self.source.loads_state

    def limit(self) -> tuple[Role, float] | None:
        """Returns the limit at which the script stops training: `epochs` or `steps`, and the value.

        None if no parameter limits the training.
        """
        for role in ("epochs", "steps"):
            number = number_of(self.stated(role)[0])
            if number is not None:
                return role, number
        return None

    def raised_limit(self) -> tuple[Role, float] | None:
        """Returns the raised limit for the job file: `epochs` or `steps`, and the raised value.

        None if there is no limit, or if the learning rate follows a schedule that may depend on the limit.
        """
        limit = self.limit()
        if limit is None or self.source.has_schedule:
            return None
        return limit[0], limit[1] * _LIMIT_FACTOR

    def _values(self) -> dict[Role, str]:
        """Returns the values that parameters of the script get in the command template.

        Returns:
            Maps each role to a template variable such as `{batch_size}`, or to the raised limit.
        """
        found: dict[Role, str] = {
            "batch_size": "{batch_size_per_rank}" if self.batch_is_per_rank else "{batch_size}",
            "learning_rate": "{learning_rate}",
            "seed": "{seed}",
            **self.folders(),
        }
        raised = self.raised_limit()
        if raised is not None:
            found[raised[0]] = str(int(raised[1])) if raised[1].is_integer() else str(raised[1])
        return {role: text for role, text in found.items() if role in self.roles}

    def command_template(self) -> str:
        """Returns the command template for `workload.command`."""
        return self._command(self._values(), self.line.launcher_template(), is_template=True)

    def folders(self) -> dict[Role, str]:
        """Returns the output paths in the command template.

        Returns:
            Maps the role of each output path to its template, such as `{output_folder}` or `{checkpoint}`.
        """
        found: dict[Role, str] = {}
        if "output" in self.roles:
            found["output"] = "{output_folder}"
        if "log" in self.roles:
            name = re.sub(r"[^\w.\-]", "_", Path(self.stated("log")[0] or "scores.log").name)
            found["log"] = f"{{output_folder}}/{name}"
        if self.saves_to is not None and self.resume_text() is not None:
            found[self.saves_to] = "{checkpoint}"
        elif "save" in self.roles:
            found["save"] = "{output_folder}/checkpoint" if self.saves_to_file else "{output_folder}/saved"
        return found

    def trial_command(self, places: Mapping[Role, Path], settings: Path | None = None) -> str:
        """Returns the user's command with other output paths, for a short run that finds out what it writes.

        Args:
            places: Maps the roles of output paths to new paths; other parameters keep their values.
            settings: Folder for changed copies of configuration files, if an output path is set in such a
                file; None if the configuration files need not be changed.
        """
        changes = {role: shlex.quote(str(path)) for role, path in places.items()}
        plain = tuple(shlex.quote(word) for word in self.line.launcher)
        folder = None if settings is None else shlex.quote(str(settings))
        return self._command(changes, plain, is_template=False, settings=folder)

    def resume_text(self) -> str | None:
        """Returns the text of `workload.resume`; None if the script cannot resume or saved no known state."""
        if self.saves_to is None:
            return None
        if "resume" not in self.roles and not self.source.loads_state:
            return None
        if self.resumes_by_itself:
            return "" if self.saved or self.saves_to_file else None
        parameter = self.roles["resume"]
        if parameter.fixed is not None:
            return _assigned(parameter, parameter.fixed)
        if not parameter.takes_value:
            return parameter.name
        if self.saves_to_file:
            place = "{checkpoint}"
        elif not self.saved:
            return None
        elif "*" in self.saved:
            place = f"$(ls -td {{checkpoint}}/{self.saved} | head -n 1)"
        else:
            place = f"{{checkpoint}}/{self.saved}"
        return _assigned(parameter, place)

    def environment(self) -> dict[str, str]:
        """Returns the environment variables for `workload.environment`, by name."""
        found = {name: braced(value) for name, value in self.line.environment.items()}
        for role, text in self._values().items():
            if self.roles[role].way == "variable":
                found[self.roles[role].name] = text
        return found

    def with_saved(self, folder: Path, files: Sequence[Path]) -> Draft:
        """Returns a copy of this draft in which `saved` is the path of the state that the script has saved.

        Args:
            folder: Path to which the script was asked to save.
            files: Files that the script wrote in a short run of the command.
        """
        if folder in files:
            return replace(self, saved=".")
        names = [path.relative_to(folder) for path in files if path.is_relative_to(folder)]
        folders = {parent for name in names for parent in name.parents if parent != Path()}
        found = [name for name in (*names, *folders) if is_state(name)]
        if not found:
            # A script that resumes by itself finds its own state, so the file need not be known.
            return replace(self, saved="*") if names and self.resumes_by_itself else self
        # Prefer a numbered folder to the files in it, and names such as `last` to others.
        found.sort(
            key=lambda name: (
                len(name.parts),
                not re.search("last|latest|checkpoint|ckpt", name.name),
                str(name),
            )
        )
        return replace(self, saved=re.sub(r"\d+([._]\d+)*", "*", found[0].as_posix()))

    def _command(
        self,
        changes: Mapping[Role, str],
        launcher: Sequence[str],
        *,
        is_template: bool,
        settings: str | None = "{output_folder}",
    ) -> str:
        """Returns the user's command in which some parameters of the script have new values.

        Args:
            changes: Maps the role of each parameter to change to its new value, quoted for the shell.
            launcher: Words before the script, quoted for the shell.
            is_template: Whether to return a template for the job file; False for a command to run.
            settings: Folder for changed copies of configuration files; None to change no such file.
        """
        words = list(self.line.arguments)
        texts = [braced(self.line.quoted(word)) if is_template else self.line.quoted(word) for word in words]
        appended: list[str] = []
        edits: dict[str, dict[str, str]] = {}
        assigned = {}
        for role, value in changes.items():
            parameter = self.roles[role]
            if parameter.way == "variable":
                assigned[parameter.name] = value
            elif parameter.way == "file":
                owner = next(file for file in self.files if parameter.name in file.keys)
                edits.setdefault(owner.word, {})[parameter.name] = value
            elif not _replaced(texts, words, parameter, value):
                if parameter.way == "gin":
                    option = next(
                        (one.name for one in self.parameters if _GIN.fullmatch(one.name)), "--gin_bindings"
                    )
                    value = f"{parameter.name}={value}"
                    parameter = Parameter(name=option, way="option", place="", joined=True)
                appended.append(_assigned(parameter, value))
        if any(one.name == "hydra.run.dir" for one in self.parameters) and is_template:
            is_set = any(text.startswith("hydra.run.dir=") for text in [*texts, *appended])
            appended += [] if is_set else ["hydra.run.dir={output_folder}"]
        # In a template, the environment is in `workload.environment`.
        own = {name: shlex.quote(value) for name, value in self.line.environment.items()}
        variables = {} if is_template else own | assigned
        front = [f"{name}={value}" for name, value in variables.items()]
        prepared = self._folders_to_make() if is_template else []
        if settings is not None:
            prepared += self._changed_files(edits, texts, settings)
        script = braced(shlex.quote(self.line.script)) if is_template else shlex.quote(self.line.script)
        # Options must come before `--`.
        end = words.index("--") if "--" in words else len(texts)
        texts[end:end] = appended
        line = " ".join([*front, *launcher, script, *(text for text in texts if text)])
        return " && ".join([*prepared, line])

    def _folders_to_make(self) -> list[str]:
        """Returns shell commands that create the folders to save to, if the script does not create them."""
        if not self.needs_folder or self.saves_to_file:
            return []
        return [
            f"mkdir -p {text}" for text in sorted({*self.folders().values()}) if text != "{output_folder}"
        ]

    def _changed_files(
        self, edits: Mapping[str, Mapping[str, str]], texts: list[str], settings: str
    ) -> list[str]:
        """Returns shell commands that write changed copies of configuration files.

        Args:
            edits: Maps the path of each configuration file in the command to its changed keys and values.
            texts: Arguments of the command; the paths of the files are replaced by those of the copies.
            settings: Folder for the copies, as shell text.
        """
        commands = []
        for number, file in enumerate(self.files):
            command = file.rewritten(edits.get(file.word, {}))
            if command is None:
                continue
            name = file.path.name
            if any(other.path.name == name for other in self.files[:number]):
                name = f"{number}-{name}"
            place = f"{settings}/{braced(shlex.quote(name))}"
            commands.append(f"{command} > {place}")
            for i, word in enumerate(self.line.arguments):
                if word == file.word:
                    texts[i] = place
                elif word.endswith(f"={file.word}"):
                    texts[i] = f"{braced(shlex.quote(word.removesuffix(file.word)))}{place}"
        return commands


def is_state(path: Path) -> bool:
    """Whether the name of a file or folder is that of a saved training state."""
    return _STATE.search(path.as_posix()) is not None


def _assigned(parameter: Parameter, value: str) -> str:
    """Returns the shell words that set a parameter to a value."""
    if parameter.way == "override":
        return f"{parameter.name}={value}"
    if parameter.way == "global":
        return f"--{parameter.name}={value}"
    joined = parameter.joined or "." in parameter.name
    return f"{parameter.name}{'=' if joined else ' '}{value}"


def given_value(line: CommandLine, parameter: Parameter) -> str | None:
    """Returns the last value that a command sets for a parameter; None if it does not set the parameter."""
    if parameter.way == "variable":
        return line.environment.get(parameter.name)
    assignments = _assignments(line.arguments, parameter)
    return assignments[-1].value if assignments else None


def given_names(line: CommandLine) -> set[str]:
    """Returns the names of the options, overrides and environment variables that the command sets."""
    names = {word.partition("=")[0] for word in line.arguments if word.startswith("-") or "=" in word}
    return names | {name.lstrip("+~") for name in names} | set(line.environment)


class _Assignment(NamedTuple):
    """An argument of a command that sets a parameter, maybe together with the next argument.

    Args:
        place: Index of the argument that contains the parameter's name.
        prefix: Shell text before the value in the same argument; None if the value is the next argument.
        value: Value of the parameter; None for a switch such as `--verbose`.
    """

    place: int
    prefix: str | None
    value: str | None


def _assignments(words: Sequence[str], parameter: Parameter) -> list[_Assignment]:
    """Returns the arguments of a command that set the given parameter of the script, in order.

    Args:
        words: The arguments of the command.
        parameter: The parameter.
    """
    names = {parameter.name, *parameter.aliases}
    if parameter.way == "global":
        names = {f"--{parameter.name}"}
    plain = {plain_name(name) for name in names if name.startswith("--")}
    short = tuple(name for name in names if re.fullmatch("-[^-]", name) and parameter.takes_value)
    found = []
    for i, word in enumerate(words):
        head, sign, _ = word.partition("=")
        if short and word.startswith(short) and number_of(word[2:]) is not None:
            found.append(_Assignment(i, f"{word[:2]} ", word[2:]))  # `-b64`
            continue
        if parameter.way == "gin":
            is_here = re.search(rf"\b{re.escape(parameter.name)}\s*=", word) is not None
        elif parameter.way == "override":
            is_here = bool(sign) and head.lstrip("+") == parameter.name
        else:
            is_here = head in names or (head.startswith("--") and plain_name(head) in plain)
        if is_here and sign:
            before, _, value = word.rpartition("=")
            found.append(_Assignment(i, f"{shlex.quote(before)}=", value))
        elif is_here:
            has_value = parameter.takes_value and i + 1 < len(words)
            found.append(_Assignment(i, None, words[i + 1] if has_value else None))
    return found


def _replaced(texts: list[str], words: Sequence[str], parameter: Parameter, value: str) -> bool:
    """Replaces the value of a parameter in the arguments of a command.

    Args:
        texts: The arguments, quoted for the shell; changed by this function.
        words: The arguments without quotes, in the same order.
        parameter: The parameter.
        value: New value, quoted for the shell.

    Returns:
        Whether the command sets the parameter, so its value was replaced.
    """
    assignments = _assignments(words, parameter)
    for one in assignments[:-1]:  # remove all assignments but the last one, which sets the value
        texts[one.place] = ""
        if one.prefix is None and one.value is not None:
            texts[one.place + 1] = ""
    for one in assignments[-1:]:
        if one.prefix is not None:
            texts[one.place] = braced(one.prefix) + value
        elif one.value is not None:
            texts[one.place + 1] = value
    return bool(assignments)
