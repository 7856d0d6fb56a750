"""Checks that a submitted job names only what the server allows: code, commands, launchers, paths, images."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from tuner.domain.errors import JobError
from tuner.server.allowed_commands import judge_command
from tuner.server.settings import AllowSection

#: Environment variables that can make a program load code or other settings. No pattern allows them.
_NEVER = re.compile(
    r"LD_.*|DYLD_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|NLSPATH|PATH|IFS|ENV|BASH.*|SHELL.*|ZDOTDIR|PS[0-4]|CDPATH|"
    r"PROMPT_COMMAND|PYTHON(?!UNBUFFERED$|HASHSEED$|FAULTHANDLER$).*|PERL5.*|RUBY.*|NODE_.*|JAVA_.*|_JAVA_.*|"
    r"CLASSPATH|JDK_.*|GIT_.*|SSH_.*|PIP_.*|UV_.*|CONDA_.*|VIRTUAL_ENV|HOSTALIASES|OPENSSL_.*|CUDA_INJECTION.*|"
    r"SLURM_.*|SBATCH_.*|SRUN_.*|RAY_.*|APPTAINER.*|SINGULARITY.*|DOCKER_.*|CONTAINERS?_.*|XDG_.*|HOME|TMPDIR|"
    r"PACELINE_.*"
)
#: Maximum number of characters of a command.
_LONGEST_COMMAND = 10_000
#: Variables of templates whose values are paths that Paceline makes.
_OWN_PATHS = ("{checkpoint}", "{output_folder}", "{metrics}", "{values}")

#: Keys whose values are numbers, members of a fixed list, or text that is only compared with other text.
_HARMLESS = frozenset(
    f"{section}{key}"
    for section, keys in {
        "": "name seed",
        "workload.": "one_per publish_environment epoch_samples parameter_bytes grace",
        "workload.optimizer.": "name momentum nesterov weight_decay betas",
        "workload.schedule.": "name warmup_samples at_samples divide_by horizon_samples",
        "workload.metrics.": "source value step samples epoch first_epoch seconds pattern rank",
        "cluster.": "container nodes devices_per_node dollars_per_node_hour threads_per_rank nodes_at_hand "
        "capacity",
        "cluster.remote.": "lease offer_timeout",
        "cluster.slurm.": "time cpus_per_node",
        "cluster.ray.": "cpus_per_node gpus_per_node resources.* node_timeout",
        "cluster.machine.": "fixed_seconds seconds_per_sample jitter persistent latency bandwidth "
        "message_latency message_bandwidth overlap time_between_failures restart",
        "cluster.emulate.delay.": "ranks low high",
        "goal.": "metric target direction minimize trainings deadline max_dollars consecutive_scores",
        "space.": "batch_size batch_size.low batch_size.high learning_rate learning_rate.low "
        "learning_rate.high learning_rate.levels_per_decade strategy tau beta outer_learning_rate "
        "outer_momentum",
        # The baseline of a recorded job has the axes of the recording.
        "baseline.": "*",
        "probe.": "kind timing_steps slice_seconds first_score_samples score_growth max_scoring "
        "max_batch_size_per_rank hang_timeout",
        "budget.": "time dollars node_hours probes",
    }.items()
    for key in keys.split()
)


@dataclass(kw_only=True)
class _Checking:
    """The state of a check.

    Args:
        allow: What the server allows.
        fixed_words: Words of allowed commands that name programs and scripts.
        is_final: Whether something was refused that no settings allow.
    """

    allow: AllowSection
    fixed_words: set[str] = field(default_factory=set)
    is_final: bool = False


def _workload(path: str, _key: str, checking: _Checking) -> str:
    patterns = checking.allow.workloads
    if any(fnmatchcase(path, pattern) for pattern in patterns):
        return ""
    return f"{path!r} is not on the server's allow list, which has {_listed(patterns)}"


def _command(command: str, _key: str, checking: _Checking) -> str:
    return _judged(command, checking.allow.commands, checking)


def _resume(option: str, _key: str, checking: _Checking) -> str:
    return _judged(option, checking.allow.resume, checking)


def _judged(command: str, patterns: tuple[str, ...], checking: _Checking) -> str:
    if len(command) > _LONGEST_COMMAND:
        return f"has {len(command):,} characters, but at most {_LONGEST_COMMAND:,} are allowed"
    verdict = judge_command(command, patterns)
    if verdict.refusal:
        return f"{command!r} {verdict.refusal}"
    checking.fixed_words.update(verdict.fixed_words)
    # {resume} stands for workload.resume, which is checked itself.
    free_words = [word for word in verdict.free_words if word != "{resume}"]
    return _first(_path(text, "", checking) for word in free_words for text in _texts(word))


def _texts(word: str) -> Iterator[str]:
    """Yields the parts of a word that may be paths, such as that of --data=/etc, x:/etc, -I/etc, @/etc."""
    yield from (word, *re.split(r"[=,]|:(?!//)", word)[1:], re.sub(r"^-+\w?|^@", "", word))


def _variable(value: str, key: str, checking: _Checking) -> str:
    name = key.rpartition(".")[2]
    if _NEVER.fullmatch(name.upper()):
        checking.is_final = True
        return "this variable can make programs run other code, so no server allows it; remove it"
    patterns = checking.allow.environment
    if not any(fnmatchcase(name, pattern) for pattern in patterns):
        return f"this variable is not on the server's allow list, which has {_listed(patterns)}"
    return _first(_path(text, key, checking) for text in _texts(value))


def _launcher(name: str, _key: str, checking: _Checking) -> str:
    known = checking.allow.launchers
    return "" if name in known else f"{name!r} is not on the server's allow list, which has {_listed(known)}"


def _image(image: str, _key: str, checking: _Checking) -> str:
    patterns = checking.allow.images
    # An image can be a file, and `*` also matches "..".
    if ".." not in image.split("/") and any(fnmatchcase(image, pattern) for pattern in patterns):
        return ""
    return f"{image!r} is not on the server's allow list, which has {_listed(patterns)}"


def _cluster_value(value: str, key: str, checking: _Checking) -> str:
    stated = f"{key.removeprefix('cluster.')}={value}"
    if any(fnmatchcase(stated, pattern) for pattern in checking.allow.cluster):
        return ""
    return f"{stated!r} is not on the server's allow list, which has {_listed(checking.allow.cluster)}"


def _path(text: str, _key: str, checking: _Checking) -> str:
    """Refuses paths that lead out of the workspace, unless the server allows them."""
    start = next((own for own in _OWN_PATHS if text.startswith(own)), "")
    place = PurePosixPath(text.removeprefix(start).lstrip("/") if start else text)
    leaves = (
        ".." in re.split(r"[/\\]", text)
        or text.startswith(("~", "\\", "{python}", "{resume}", "file:"))
        or re.match(r"[A-Za-z][\w+.-]*://|[A-Za-z]:[\\/]", text) is not None
        or place.is_absolute()
    )
    if not leaves:
        return ""
    has_steps = ".." in re.split(r"[/\\]", text)
    if not has_steps and any(fnmatchcase(text, pattern) for pattern in checking.allow.paths):
        return ""
    return (
        f"{text!r} leads out of the workspace. Submit the file with the job, and name it relative to the job "
        f"file; the server's list of allowed paths outside has {_listed(checking.allow.paths)}"
    )


#: Maps each key of a job file that can name code, commands, hosts, paths or options of other programs to its
#: check, which returns why a value is refused. A key that is neither here nor in `_HARMLESS` is refused.
_CHECKS: Mapping[str, Callable[[str, str, _Checking], str]] = {
    "workload.path": _workload,
    "workload.parameters.*": _path,
    "workload.command": _command,
    "workload.resume": _resume,
    "workload.environment.*": _variable,
    "workload.folder": _path,
    "workload.metrics.path": _path,
    "probe.recording": _path,
    "cluster.launcher": _launcher,
    "cluster.image": _image,
    "cluster.python": _cluster_value,
    "cluster.torchrun.hosts": _cluster_value,
    "cluster.torchrun.connect": _cluster_value,
    "cluster.slurm.partition": _cluster_value,
    "cluster.slurm.account": _cluster_value,
    "cluster.slurm.gres": _cluster_value,
    "cluster.slurm.extra.*": _cluster_value,
    "cluster.ray.address": _cluster_value,
}


#: Keys of a job file about which this module decides; `.*` stands for all keys of a table.
DECIDED = _HARMLESS | frozenset(_CHECKS)


def check_allowed(data: Mapping[str, Any], allow: AllowSection) -> frozenset[str]:
    """Checks that a job file names only what the server allows.

    The check comes before the job is loaded, since loading it reads files. Keys that this module does not
    know are left to `check_decided`.

    Args:
        data: Content of the job file, with the new names of renamed keys.
        allow: What the server allows.

    Returns:
        The words of the job's commands that name programs and scripts.

    Raises:
        JobError: Something is not allowed. The message names each key, what is allowed and what to do.
    """
    checking = _Checking(allow=allow)
    refusals = []
    cluster = data.get("cluster")
    is_remote = isinstance(cluster, Mapping) and cluster.get("launcher") == "remote"
    # As the job is loaded: dates become text.
    for path, value in _values(json.loads(json.dumps(data, default=str)), ()):
        key = ".".join(path)
        check = _CHECKS.get(_decision(path))
        # The commands of trainers elsewhere are only shown.
        if check is None or (is_remote and check in (_command, _resume)):
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        # Commands are compared literally, so they may have the line breaks of the allow list.
        may_break = check in (_command, _resume)
        if not (key + ("" if may_break else text)).isprintable():
            refusals.append(f"{key!r}: has a control character, such as a line break; remove it")
        elif words := check(text, key, checking):
            refusals.append(f"{key}: {words}")
    if refusals:
        more = f"; and {len(refusals) - 5} more" if len(refusals) > 5 else ""
        ask = "" if checking.is_final else ", or ask an administrator of the server to extend [allow]"
        raise JobError(f"{'; '.join(refusals[:5])}{more}. Change the job{ask}")
    return frozenset(checking.fixed_words)


def check_decided(data: Mapping[str, Any]) -> None:
    """Checks that `check_allowed` knows every key of a valid job file.

    Raises:
        JobError: A key is valid in job files, but nobody has decided whether submitted jobs may have it.
    """
    unknown = [".".join(path) for path, _ in _values(data, ()) if _decision(path) not in DECIDED]
    if unknown:
        raise JobError(f"{unknown[0]}: this server does not take jobs with this key; remove it")


def _decision(path: tuple[str, ...]) -> str:
    """Returns the key under which a decision about a path is listed."""
    key = ".".join(path)
    if key in DECIDED:
        return key
    above = (".".join((*path[:length], "*")) for length in range(len(path) - 1, 0, -1))
    return next((table for table in above if table in DECIDED), key)


def _values(value: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields each value that is not a table or list, with its keys; the keys of tables are values, too."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _values(inner, (*above, key))
            if _decision((*above, key)) == "workload.parameters.*":
                yield (*above, key), key
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, above)
    else:
        yield above, value


def _first(refusals: Iterable[str]) -> str:
    return next(filter(None, refusals), "")


def _listed(patterns: tuple[str, ...]) -> str:
    return ", ".join(repr(pattern) for pattern in patterns) or "no entry"
