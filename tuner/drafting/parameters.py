"""Describes the parameters of a training script, and finds those for batch size, learning rate and so on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Way = Literal["option", "override", "gin", "file", "variable", "global"]
"""How a parameter is set: `option` for `--name value`, `override` for `name=value`, `gin` for a gin binding,
`file` for a line of a configuration file, `variable` for an environment variable, `global` for `--name=value`
that sets a global variable of the script."""

Role = Literal["batch_size", "learning_rate", "epochs", "steps", "seed", "output", "log", "save", "resume"]

#: Maps each role (what a parameter is used for) to the names of parameters that have it, the likeliest first,
#: and to words that such a name must not contain. The last part of a dotted name is compared with these
#: names.
_ROLES: dict[Role, tuple[str, str]] = {
    "batch_size": (
        "global_batch_size total_batch_size effective_batch_size train_batch_size batch_size "
        "per_device_train_batch_size per_gpu_train_batch_size batch_size_per_gpu batch_size_per_device "
        "batch_size_per_rank per_device_batch_size local_batch_size micro_batch_size device_batch_size "
        "samples_per_gpu train_bs batchsize batch bs bsz mbs b",
        "test eval evaluation val valid validation dev predict inference sampler",
    ),
    "learning_rate": (
        "learning_rate lr peak_lr base_lr max_lr learningrate init_lr initial_lr peak_learning_rate "
        "base_learning_rate blr lr0",
        "min final end warmup decay schedule scheduler policy type mult factor",
    ),
    "epochs": (
        "num_train_epochs max_epochs num_epochs n_epochs epochs nb_epochs max_epoch train_epochs n_epoch "
        "num_epoch epoch",
        "warmup decay start cooldown patience save eval every interval freq log",
    ),
    "steps": (
        "max_steps num_train_steps total_steps train_steps num_steps n_steps max_iters num_iterations "
        "max_iterations total_iters iterations num_iters n_iters iters num_boost_round n_estimators max_iter "
        "niter steps total_timesteps max_timesteps num_timesteps timesteps total_env_steps",
        "warmup decay save eval logging log every accumulation interval freq val grad",
    ),
    "seed": ("seed random_seed manual_seed rng_seed random_state seed_everything", ""),
    "output": (
        "output_dir hydra.run.dir default_root_dir out_dir outdir output_folder output_path work_dir workdir "
        "run_dir exp_dir experiment_dir results_dir result_dir log_dir logdir model_dir project_dir output "
        "out root_dir root",
        "overwrite layer channel channels features dim size",
    ),
    "log": (
        "log_file logfile metrics_file scores_file results_file history_file csv_file log_path metrics_path "
        "results_path output_file out_file csv metrics log",
        "every interval freq steps level dir folder best",
    ),
    "save": (
        "checkpoint_dir checkpoint_folder ckpt_dir save_dir save_folder save_path checkpoint_path save_to "
        "snapshot_path snapshot_dir backup_dir backup_path checkpoint_file save_file save_model_path "
        "state_path state_file save checkpoint ckpt model_path model_file model_out weights_path weights "
        "model",
        "every interval freq steps strategy limit total best only",
    ),
    "resume": (
        "resume resume_from_checkpoint resume_from resume_path resume_ckpt ckpt_path restore_from restore "
        "load_checkpoint continue_from load checkpoint ckpt",
        "every interval steps strategy optimizer scheduler download",
    ),
}
#: Matches names of files that may contain a saved training state.
STATE_FILE = re.compile(
    r"\.(pt|pth|ckpt|npz|npy|pkl|pickle|bin|safetensors|h5|keras|tar|msgpack|joblib|txt|json|model)$", re.I
)
_SCORE_FILE = re.compile(r"\.(csv|tsv|jsonl?|ndjson|log|txt)$", re.I)
_RUN_FOLDER = re.compile(r"run|log|out|result|exp|checkpoint|save", re.I)
#: Names of parameters that may or may not be output paths, each with a pattern: a parameter of this name is
#: taken as an output path only if its default value matches the pattern.
_DOUBTFUL: dict[str, re.Pattern[str]] = {
    **dict.fromkeys(("weights", "model", "model_path", "model_file"), STATE_FILE),
    **dict.fromkeys(("csv", "metrics", "log", "output_file", "out_file"), _SCORE_FILE),
    **dict.fromkeys(("root", "root_dir"), _RUN_FOLDER),
}
_INPUT = re.compile(r"pre-?trained|fine-?tun|initiali|warm start|to load|load from|read from", re.I)
#: Maps roles to patterns: a parameter whose help text matches the pattern does not have the role.
_EXCLUDING_HELP: dict[Role, re.Pattern[str]] = {
    "steps": re.compile(r"roll-?out|per (policy|environment|env|update|epoch)|horizon", re.I),
    "output": _INPUT,
    "save": _INPUT,
}
#: Names of parameters that may be either the path to save to or the path of a model to start from.
MAYBE_INPUTS = {
    "checkpoint",
    "ckpt",
    "weights",
    "weights_path",
    "model",
    "model_path",
    "model_file",
    "model_dir",
}
#: Ways to set a parameter, the preferred one first.
_WAYS: tuple[Way, ...] = ("option", "override", "gin", "variable", "file", "global")
#: Names that are also recognized at the end of a longer name, as in `sgd_lr` or `TRAINER_BATCH_SIZE`.
_ENDINGS = ("batch_size", "learning_rate", "lr")
_PER_RANK = re.compile(
    r"per[_ -]?(device|gpu|rank|process|worker|core|replica)|micro|(^|[_.])(local|device)_", re.I
)
_GLOBAL = re.compile(r"\b(global|total|effective|across|over) ?", re.I)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a training script.

    Args:
        name: Name as the user writes it: `--batch-size`, `optimizer.lr`, `BATCH_SIZE`.
        aliases: Other names of the same parameter, such as `-b`.
        way: How the parameter is set, such as `option` for `--name value`; see `Way`.
        default: Default value as text; None if unknown.
        takes_value: Whether a value follows the name; False for a switch such as `--verbose`.
        words: Help text of the parameter, from which its role is guessed.
        place: Where the parameter was found, such as `train.py line 7`, for the comments of the job file.
        joined: Whether name and value are written as one word, `--name=value`.
        fixed: The only value that makes the script resume, such as `resume`; None if any value may be set.
    """

    name: str
    aliases: tuple[str, ...] = ()
    way: Way
    default: str | None = None
    takes_value: bool = True
    words: str = ""
    place: str
    joined: bool = False
    fixed: str | None = None

    @property
    def plain_name(self) -> str:
        """Name of the parameter in lower case with underscores, without leading dashes."""
        return plain_name(self.name)

    @property
    def is_per_rank(self) -> bool | None:
        """Whether the parameter is the batch size of one rank; None if name and help text do not say so."""
        if _PER_RANK.search(self.plain_name) or _PER_RANK.search(self.words):
            return True
        is_global = re.search(r"(global|total|effective)", self.plain_name) or _GLOBAL.search(self.words)
        return False if is_global else None


def plain_name(name: str) -> str:
    """Converts a name to lower case with underscores, without leading dashes or plus signs."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.lstrip("-+"))
    return spaced.replace("-", "_").lower()


def number_of(text: str | None) -> float | None:
    """Converts a text to a number; returns None if the text is not a positive, finite number."""
    if text is None:
        return None
    try:
        number = float(text.strip().strip("'\"").replace("_", ""))
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def roles_of(parameters: Iterable[Parameter], stated: Iterable[str] = ()) -> dict[Role, Parameter]:
    """Finds the likeliest parameter for each role, such as the one that sets the batch size.

    Parameters that the user's command sets are preferred to others. Among these, parameters with a name that
    is more usual for the role are preferred.

    Args:
        parameters: All parameters of the script.
        stated: Names of the parameters that the user's command sets.

    Returns:
        Maps each role to its parameter; does not contain roles for which no parameter was found.
    """
    known, given = list(parameters), set(stated)
    found: dict[Role, Parameter] = {}
    for role in _ROLES:
        ranked = [
            (not given & {one.name, *one.aliases}, _WAYS.index(one.way), rank, i)
            for i, one in enumerate(known)
            if (rank := _rank(one, role)) is not None
        ]
        if ranked:
            found[role] = known[min(ranked)[-1]]
    # If `--checkpoint` is the only path to save to, it is not the path to resume from.
    if "resume" in found and found["resume"] in (found.get("save"), found.get("output")):
        del found["resume"]
    if "save" in found and found["save"] == found.get("output"):
        del found["save"]
    return found


def _rank(parameter: Parameter, role: Role) -> int | None:
    """Ranks how likely it is that a parameter has a role, such as to set the batch size.

    Returns:
        The rank: 0 is the likeliest. None if the parameter cannot have the role.
    """
    names, excluded = (words.split() for words in _ROLES[role])
    name = parameter.plain_name
    end = name.rpartition(".")[2]
    help_excludes = _EXCLUDING_HELP.get(role)
    if set(re.split(r"[._]", name)) & set(excluded) or (
        help_excludes and help_excludes.search(parameter.words)
    ):
        return None
    if not parameter.takes_value and role in ("batch_size", "learning_rate", "output", "log", "save"):
        return None
    needed = _DOUBTFUL.get(end) if role in ("output", "log", "save") else None
    if needed and not needed.search(parameter.default or ""):
        return None
    last_two = "_".join(name.split(".")[-2:])  # `checkpoint.folder` is compared as `checkpoint_folder`
    rank = next((i for i, one in enumerate(names) if one in (name, end, last_two)), None)
    if rank is None and any(end.endswith(f"_{one}") for one in _ENDINGS if one in names):
        rank = len(names)
    # Names with fewer dots are preferred: `train.batch_size` to `data.loader.batch_size`.
    return None if rank is None else 10 * rank + min(name.count("."), 9)
