"""Splits a training command into environment variables, launcher, script and arguments."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuner.domain.errors import JobError

Kind = Literal["plain", "torchrun", "other launcher"]

_SHELL = re.compile(r"^(&&|\|\|?|;|&|[012&]?>>?.*|<.*)$|;$")
#: Matches a word of a command that contains no quotes, escapes and shell operators.
_PLAIN = re.compile(r"[^'\"\\`;&|<>()#!]+")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
#: Python modules that start another script.
_LAUNCHING_MODULES = {
    "torch.distributed.run",
    "torch.distributed.launch",
    "accelerate.commands.launch",
    "deepspeed.launcher.runner",
}
_LAUNCHERS = ("accelerate", "deepspeed", "mpirun", "mpiexec", "srun", "horovodrun", "colossalai")
#: Matches the options of torchrun that Paceline sets itself. All take a value except `--standalone`.
_SET_BY_PACELINE = re.compile(
    r"--(nnodes|nproc[-_]per[-_]node|node[-_]rank|master[-_](addr|port)|rdzv[-_]\w+|standalone)(=.*)?$"
)
_TORCHRUN_OPTIONS = (
    "--nnodes {nodes} --node-rank {node_rank} --nproc-per-node {devices_per_node} "
    "--master-addr {main_address} --master-port {main_port}"
)
_RANKS = re.compile(r"--(nproc[-_]per[-_]node|num[-_]processes|num[-_]gpus)(?:=(?P<number>.*))?$")


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """The parts of a training command.

    Args:
        environment: Maps the environment variables set before the command, such as `LR=0.1`, to their values.
        launcher: Words before the script, such as `("python", "-u")`.
        script: Path of the script as written in the command; for `-m module`, the name of the module.
        arguments: Words after the script, in order.
        plain: Words that the user wrote without quotes, so the shell may expand `$HOME` or `~` in them.
    """

    environment: dict[str, str]
    launcher: tuple[str, ...]
    script: str
    arguments: tuple[str, ...]
    plain: frozenset[str] = frozenset()

    def quoted(self, word: str) -> str:
        """Quotes a word for the shell, unless the user wrote it without quotes."""
        return word if word in self.plain else shlex.quote(word)

    @property
    def kind(self) -> Kind:
        """Kind of launcher that starts the training processes; `plain` if there is none."""
        words = " ".join(self.launcher)
        if re.search(r"(^|/| )torchrun\b|torch\.distributed\.(run|launch)", words):
            return "torchrun"
        names = {Path(word).name for word in self.launcher}
        return "other launcher" if names & {*_LAUNCHERS, "accelerate.commands.launch"} else "plain"

    @property
    def num_ranks(self) -> int | None:
        """Number of training processes that the launcher starts on a node; None if unknown.

        Without a launcher, it is 1.
        """
        for word, following in zip(self.launcher, (*self.launcher[1:], ""), strict=False):
            found = _RANKS.match(word)
            if found is not None and self.kind != "plain":
                number = following if found["number"] is None else found["number"]
                return int(number) if number.isdecimal() and int(number) > 0 else None
        return None if self.kind == "other launcher" else 1

    def launcher_template(self) -> tuple[str, ...]:
        """Returns the words before the script, as they have to be written in `workload.command`.

        The values of those torchrun options that depend on nodes and ranks become template variables.
        """
        plain = [braced(shlex.quote(word)) for word in self.launcher]
        if self.kind != "torchrun":
            return tuple(plain)
        others: list[str] = []
        skips_value = False
        for word in plain:
            if skips_value and not word.startswith("-"):
                skips_value = False
                continue
            found = _SET_BY_PACELINE.match(word)
            skips_value = found is not None and found[3] is None and found[1] != "standalone"
            if found is None:
                others.append(word)
        is_module = others[-1:] == ["-m"] and "torch.distributed" not in self.script
        module = [others.pop()] if is_module else []
        return (*others, *_TORCHRUN_OPTIONS.split(), *module)

    def script_path(self, folder: Path) -> Path | None:
        """Returns the path of the script; None if the script is not in `folder`.

        Args:
            folder: Working directory of the command.
        """
        names = [self.script]
        if self.launcher[-1:] == ("-m",):
            module = self.script.replace(".", "/")
            names += [f"{module}.py", f"{module}/__main__.py"]
        return next((folder / name for name in names if (folder / name).is_file()), None)

    def stated_options(self) -> list[tuple[str, str | None, bool]]:
        """Returns the options and `key=value` overrides among the arguments.

        Returns:
            Three entries for each option: its name, its value (None if it has no value), and whether name and
            value are joined by `=`.
        """
        found: list[tuple[str, str | None, bool]] = []
        for i, word in enumerate(self.arguments):
            name, sign, value = word.partition("=")
            if re.fullmatch(r"-{1,2}[A-Za-z][\w.\-]*", name):
                following = self.arguments[i + 1] if i + 1 < len(self.arguments) else "-"
                is_value = not following.startswith("-") or re.fullmatch(r"-[\d.].*", following) is not None
                found.append((name, value if sign else following if is_value else None, bool(sign)))
            elif sign and re.fullmatch(r"\+{0,2}[A-Za-z][\w.]*", name):
                found.append((name.lstrip("+"), value, True))
        return found


def braced(text: str) -> str:
    """Doubles the braces in a text, so they are not taken as template variables."""
    return text.replace("{", "{{").replace("}", "}}")


def split_command(command: str) -> CommandLine:
    """Splits a training command into its parts.

    Args:
        command: The command as the user types it in a shell, such as `LR=0.1 python train.py --data data`.

    Raises:
        JobError: The command is empty, has unbalanced quotes, or is more than one command.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise JobError(f"--script: {command!r} is not a valid command line: {error}") from error
    shell = next((word for word in words if _SHELL.match(word)), None)
    if shell is not None:
        raise JobError(
            f"--script: {command!r} contains {shell!r}; give the training command alone, without pipes, "
            "redirections or a second command"
        )
    if words[:1] == ["env"] and len(words) > 1 and _ASSIGNMENT.fullmatch(words[1]):
        del words[0]
    try:
        command.encode()
    except UnicodeEncodeError as error:
        raise JobError(
            f"--script: {command!r} contains a file name that is not valid UTF-8: rename that file"
        ) from error
    environment = {}
    while words and _ASSIGNMENT.fullmatch(words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = os.path.expandvars(re.sub(r"^~(?=/|$)", "$HOME", value))
    if not words:
        raise JobError(
            "--script is empty; give the command that trains, such as --script 'python train.py --data data'"
        )
    start = _script_index(words)
    return CommandLine(
        environment=environment,
        launcher=tuple(words[:start]),
        script=words[start],
        arguments=tuple(words[start + 1 :]),
        plain=frozenset(word for word in command.split() if _PLAIN.fullmatch(word)),
    )


def _script_index(words: list[str]) -> int:
    """Returns the index of the script among the words of a command.

    The script is the first word that is a Python file, or a module after `-m` that does not start another
    script. If there is no such word, it is the first word, which is the program.
    """
    for i, word in enumerate(words):
        if word.endswith(".py"):
            return i
        if words[i - 1 : i] == ["-m"] and word not in _LAUNCHING_MODULES:
            return i
    return 0
