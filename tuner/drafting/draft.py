"""The command of a drafted job: which words of the user's command become variables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.drafting.command_line import CommandLine, braced
from tuner.drafting.config_files import ConfigFile
from tuner.drafting.parameters import STATE_FILE, Parameter, Role, number_of, plain_name
from tuner.drafting.source_code import SourceCode

_STATE = re.compile(
    r"\.(pt|pth|ckpt|npz|pkl|pickle|tar|msgpack|keras|joblib|distcp)$|(^|/)checkpoint-\d+$|\.weights\.h5$"
    r"|(^|/)(checkpoints?|ckpts?|backup|snapshots?)/"
)
#: A script's own limit is raised by this factor, so that slow settings can still reach the target.
_MORE = 10


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What is known of a command before and after it ran.

    Args:
        line: The command's parts.
        source: What the source says.
        parameters: Everything that can be set from outside.
        roles: Which parameter does what.
        files: Configuration files that the command names.
        saved: Path of what it saved below its folder, with `*` for numbers; `.` if it is a file itself; empty
            if nothing was seen.
        needs_folder: Whether the script fails where the folder that it saves to does not exist.
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
        """Processes that the command starts."""
        return self.line.num_ranks or 1

    def stated(self, role: Role) -> tuple[str | None, str]:
        """A parameter's present value as text, and where it comes from; None if unknown."""
        parameter = self.roles.get(role)
        if parameter is None:
            return None, ""
        given = given_value(self.line, parameter)
        if given is not None:
            return given, "your command"
        return parameter.default, f"default in {parameter.place}"

    @property
    def batch_is_per_rank(self) -> bool:
        """Whether the script's batch size is taken for that of one rank."""
        parameter = self.roles.get("batch_size")
        if parameter is None or self.num_ranks == 1:
            return False
        return parameter.is_per_rank is not False

    @property
    def batch_size(self) -> int | None:
        """Present global batch size; None if unknown."""
        number = number_of(self.stated("batch_size")[0])
        if number is None or number != int(number):
            return None
        return int(number) * (self.num_ranks if self.batch_is_per_rank else 1)

    @property
    def learning_rate(self) -> float | None:
        """Present learning rate; None if unknown."""
        return number_of(self.stated("learning_rate")[0])

    @property
    def saves_to(self) -> Role | None:
        """The parameter that says where the training is saved."""
        return "save" if "save" in self.roles else "output" if "output" in self.roles else None

    @property
    def saves_to_file(self) -> bool:
        """Whether the place to save to is a file, as the run showed or by its present name."""
        if self.saved:
            return self.saved == "."
        role = self.saves_to
        text = (self.stated(role)[0] or "") if role is not None else ""
        return bool(STATE_FILE.search(text))

    @property
    def can_resume(self) -> bool:
        """Whether the script seems to have both: a place to save to, and a way to resume."""
        return self.saves_to is not None and ("resume" in self.roles or self.resumes_by_itself)

    @property
    def resumes_by_itself(self) -> bool:
        """Whether the script has no option to resume, but saves and loads a state: it may find it itself."""
        return "resume" not in self.roles and self.saves_to is not None and self.source.loads_state

    def limit(self) -> tuple[Role, float] | None:
        """The script's own limit and its value: epochs, or steps."""
        for role in ("epochs", "steps"):
            number = number_of(self.stated(role)[0])
            if number is not None:
                return role, number
        return None

    def raised_limit(self) -> tuple[Role, float] | None:
        """The limit that the job sets; None if the present one stays."""
        limit = self.limit()
        if limit is None or self.source.has_schedule:
            return None
        return limit[0], limit[1] * _MORE

    def _values(self) -> dict[Role, str]:
        """What each parameter is set to in the job: variables, and a raised limit."""
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
        """`workload.command`."""
        return self._command(self._values(), self.line.launcher_template(), is_template=True)

    def folders(self) -> dict[Role, str]:
        """Where the script writes: to the probe's own folder, and what it resumes from to `{checkpoint}`."""
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
        """The user's command, but for where it writes.

        Args:
            places: Role to the path that it gets; others are left as they are.
            settings: Folder for changed copies of configuration files; needed if one says where to write.
        """
        changes = {role: shlex.quote(str(path)) for role, path in places.items()}
        plain = tuple(shlex.quote(word) for word in self.line.launcher)
        folder = None if settings is None else shlex.quote(str(settings))
        return self._command(changes, plain, is_template=False, settings=folder)

    def resume_text(self) -> str | None:
        """`workload.resume`; None if the script cannot resume, or it was not seen what it saves."""
        if not self.can_resume:
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
        """`workload.environment`: the variables that the script reads its settings from."""
        found = {name: braced(value) for name, value in self.line.environment.items()}
        for role, text in self._values().items():
            if self.roles[role].way == "variable":
                found[self.roles[role].name] = text
        return found

    def with_saved(self, folder: Path, files: Sequence[Path]) -> Draft:
        """The draft with what the script saved.

        Args:
            folder: What it was given as the place to save to.
            files: What it wrote.
        """
        if folder in files:
            return replace(self, saved=".")
        names = [path.relative_to(folder) for path in files if path.is_relative_to(folder)]
        folders = {parent for name in names for parent in name.parents if parent != Path()}
        found = [name for name in (*names, *folders) if is_state(name)]
        if not found:
            # What loads its state by itself knows where it is.
            return replace(self, saved="*") if names and self.resumes_by_itself else self
        # What the whole state is in: a numbered folder before the files in it, `last` before others.
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
        """The command line with other values, each of which is text for the shell."""
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
                appended.append(self._assignment(parameter, value))
        if any(one.name == "hydra.run.dir" for one in self.parameters) and is_template:
            is_set = any(text.startswith("hydra.run.dir=") for text in [*texts, *appended])
            appended += [] if is_set else ["hydra.run.dir={output_folder}"]
        front = self._environment_words(assigned, is_template=is_template)
        prepared = self._folders_to_make() if is_template else []
        if settings is not None:
            prepared += self._changed_files(edits, texts, settings)
        script = braced(shlex.quote(self.line.script)) if is_template else shlex.quote(self.line.script)
        # Behind `--` there are no options any more.
        end = words.index("--") if "--" in words else len(texts)
        texts[end:end] = appended
        line = " ".join([*front, *launcher, script, *(text for text in texts if text)])
        return " && ".join([*prepared, line])

    def _environment_words(self, assigned: Mapping[str, str], *, is_template: bool) -> list[str]:
        if is_template:
            return []  # they are in workload.environment
        names = {**{n: shlex.quote(v) for n, v in self.line.environment.items()}, **assigned}
        return [f"{name}={value}" for name, value in names.items()]

    def _folders_to_make(self) -> list[str]:
        """Commands that make the folders that the script saves to, if it does not make them itself."""
        if not self.needs_folder or self.saves_to_file:
            return []
        return [
            f"mkdir -p {text}" for text in sorted({*self.folders().values()}) if text != "{output_folder}"
        ]

    def _changed_files(
        self, edits: Mapping[str, Mapping[str, str]], texts: list[str], settings: str
    ) -> list[str]:
        """Commands that write changed configuration files to a folder; the command then reads those."""
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

    def _assignment(self, parameter: Parameter, value: str) -> str:
        if parameter.way == "gin":
            option = next((one for one in self.parameters if _is_gin_option(one)), None)
            name = option.name if option is not None else "--gin_bindings"
            return f"{name}={parameter.name}={value}"
        return _assigned(parameter, value)


def is_state(path: Path) -> bool:
    """Whether a file or folder holds the state of a training, by its name."""
    return _STATE.search(path.as_posix()) is not None


def _is_gin_option(parameter: Parameter) -> bool:
    return (
        parameter.way == "option"
        and re.fullmatch(r"gin([_.]?(bindings?|params?))?", parameter.plain_name) is not None
    )


def _assigned(parameter: Parameter, value: str) -> str:
    """A parameter with a value as words of the shell."""
    if parameter.way == "override":
        return f"{parameter.name}={value}"
    if parameter.way == "global":
        return f"--{parameter.name}={value}"
    joined = parameter.joined or "." in parameter.name
    return f"{parameter.name}{'=' if joined else ' '}{value}"


def given_value(line: CommandLine, parameter: Parameter) -> str | None:
    """The value that the command gives to a parameter; the last one if it gives several."""
    if parameter.way == "variable":
        return line.environment.get(parameter.name)
    places = _places_of(line.arguments, parameter)
    if not places:
        return None
    index = places[-1]
    word = line.arguments[index]
    attached = _attached(word, parameter)
    if attached is not None:
        return attached
    if "=" in word:
        return word.rpartition("=")[2]
    if parameter.takes_value and index + 1 < len(line.arguments):
        return line.arguments[index + 1]
    return None


def _attached(word: str, parameter: Parameter) -> str | None:
    """The number behind a short option, as in `-b64`."""
    for name in (parameter.name, *parameter.aliases):
        is_short = len(name) == 2 and name[0] == "-"
        if is_short and parameter.takes_value and word.startswith(name) and number_of(word[2:]) is not None:
            return word[2:]
    return None


def given_names(line: CommandLine) -> set[str]:
    """Names that the command sets, as options or overrides, or in front of it."""
    names = {word.partition("=")[0] for word in line.arguments if word.startswith("-") or "=" in word}
    return names | {name.lstrip("+~") for name in names} | set(line.environment)


def _places_of(words: Sequence[str], parameter: Parameter) -> list[int]:
    """Where a command line sets a parameter, in order."""
    if parameter.way == "gin":
        return [i for i, word in enumerate(words) if re.search(rf"\b{re.escape(parameter.name)}\s*=", word)]
    names = {parameter.name, *parameter.aliases}
    if parameter.way == "global":
        names = {f"--{parameter.name}"}
    plain = {plain_name(name) for name in names if name.startswith("--")}
    found = []
    for i, word in enumerate(words):
        head, sign, _ = word.partition("=")
        if parameter.way == "override":
            is_here = bool(sign) and head.lstrip("+") == parameter.name
        else:
            is_here = head in names or (head.startswith("--") and plain_name(head) in plain)
            is_here = is_here or _attached(word, parameter) is not None
        if is_here:
            found.append(i)
    return found


def _replaced(texts: list[str], words: Sequence[str], parameter: Parameter, value: str) -> bool:
    """Puts a value in the place of the one that the command gives; False if it gives none."""
    places = _places_of(words, parameter)
    if not places:
        return False
    for index in places[:-1]:
        # The last one counts; the others would say something else.
        texts[index] = ""
        if "=" not in words[index] and _attached(words[index], parameter) is None and parameter.takes_value:
            texts[index + 1] = ""
    index = places[-1]
    word = words[index]
    if _attached(word, parameter) is not None:
        texts[index] = f"{word[:2]} {value}"
    elif "=" in word:
        texts[index] = f"{braced(shlex.quote(word.rpartition('=')[0]))}={value}"
    elif parameter.takes_value and index + 1 < len(words):
        texts[index + 1] = value
    return True
