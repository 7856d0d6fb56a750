"""Hostile job files are refused, each for the right reason; honest ones are accepted."""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.testclient import TestClient
from pydantic import BaseModel, ValidationError

from tests.recorded_grid import grid
from tuner.domain.errors import JobError
from tuner.domain.job_queue import NewJob, Quota, QuotaError
from tuner.job import Job
from tuner.recordings.file import write_recording
from tuner.server import allowed
from tuner.server.schemas import SubmitBody
from tuner.server.settings import AllowSection, ApprovalSection, LimitsSection, ServerSettings
from tuner.server.submission import new_job

TRAIN = "python /opt/train.py --lr {learning_rate} --batch {batch_size}"
ALLOW = AllowSection(
    workloads=("tuner.workloads.*", "team.train:*"),
    commands=(
        f"{TRAIN} ...",
        "cd /opt/x && exec 'my tool' {values} --level=?",
        "torchrun train_*.py {values}",
    ),
    resume=("--resume {checkpoint} ...",),
    environment=("OMP_NUM_THREADS", "DATA_*", "*PATH*", "LD_*", "P*", "B*"),
    launchers=("local", "slurm", "torchrun", "ray", "remote"),
    cluster=("slurm.partition=gpu*", "slurm.extra.constraint=a100", "torchrun.hosts=node?", "python=/opt/py"),
    images=("registry/team/*",),
    paths=("/data/*", "s3://bucket/*"),
)
SECTIONS = """
[goal]
metric = "accuracy"
target = 0.9
[space]
batch_size = [64, 128]
learning_rate = [0.1, 0.2]
[budget]
time = "2m"
"""


def command_job(command: str = f"{TRAIN} --epochs 3", **keys: str) -> str:
    more = "\n".join(f"{key} = {value}" for key, value in keys.items())
    return f"[workload]\ncommand = {command!r}\n{more}\n{SECTIONS}"


def workload_job(text: str = "", path: str = "tuner.workloads.digits:Digits") -> str:
    return f'[workload]\npath = "{path}"\n{text}\n{SECTIONS}'


def cluster_job(text: str, launcher: str = "local") -> str:
    return f'{command_job()}\n[cluster]\nlauncher = "{launcher}"\n{text}'


def recorded_job(recording: str) -> str:
    return f'[probe]\nkind = "recorded"\nrecording = "{recording}"\n[goal]\n[budget]\ntime = "2m"'


LIMITS = LimitsSection(file_bytes=1000, workspace_bytes=1500)


def submitted(
    job_file: str,
    files: dict[str, bytes] | None = None,
    *,
    allow: AllowSection = ALLOW,
    limits: LimitsSection = LIMITS,
    approval: ApprovalSection = ApprovalSection(),
    quota: Quota = Quota(),
    **body: Any,
) -> NewJob:
    """Returns the job of a request, as the server makes it."""
    named = {path: hashlib.sha256(content).hexdigest() for path, content in (files or {}).items()}
    contents = dict(zip(named.values(), (files or {}).values(), strict=True))
    context: Any = SimpleNamespace(
        settings=ServerSettings(allow=allow, limits=limits, approval=approval),
        store=SimpleNamespace(queue=SimpleNamespace(file=contents.__getitem__)),
    )
    caller: Any = SimpleNamespace(token=SimpleNamespace(token_id=1, quota=quota))
    return new_job(SubmitBody(job_file=job_file, files=named, **body), context, caller, None)


SHELL = r"which a shell interprets"
LISTED = "allow list"
NEVER = "no server allows it"
OUTSIDE = "leads out of the workspace"

HOSTILE: dict[str, tuple[str, str]] = {
    # Commands.
    "another program": (command_job("rm -rf {values}"), f"workload.command: .*{LISTED}"),
    "another script": (command_job(TRAIN.replace("/opt/train.py", "evil.py")), LISTED),
    "fewer words": (command_job("python {values}"), LISTED),
    "inline code": (command_job("python -c 1 --lr {learning_rate} --batch {batch_size}"), LISTED),
    "second command": (command_job(f"{TRAIN}; curl evil"), f"has ';', {SHELL}"),
    "second command, no blanks": (command_job(f"{TRAIN} a;b"), SHELL),
    "pipe": (command_job(f"{TRAIN} | sh"), SHELL),
    "background": (command_job(f"{TRAIN} & sh"), SHELL),
    "and": (command_job(f"{TRAIN} && sh"), LISTED),
    "command substitution": (command_job(f"{TRAIN} $(id)"), SHELL),
    "quoted substitution": (command_job(f'{TRAIN} "$(id)"'), SHELL),
    "backquotes": (command_job(f"{TRAIN} `id`"), SHELL),
    "quoted backquotes": (command_job(f'{TRAIN} "`id`"'), SHELL),
    "output redirection": (command_job(f"{TRAIN} > x"), SHELL),
    "input redirection": (command_job(f"{TRAIN} < x"), SHELL),
    "variable": (command_job(f"{TRAIN} $HOME"), SHELL),
    "variable in braces": (command_job(f"{TRAIN} ${{{{HOME}}}}"), SHELL),
    "brace expansion": (command_job(f"{TRAIN} {{{{a,b}}}}"), SHELL),
    "glob": (command_job(f"{TRAIN} *"), SHELL),
    "home": (command_job(f"{TRAIN} ~root"), SHELL),
    "history": (command_job(f"{TRAIN} !!"), SHELL),
    "comment": (command_job(f"{TRAIN} #"), SHELL),
    "escape": (command_job(f"{TRAIN} a\\ b"), SHELL),
    "line break": (command_job(f"{TRAIN} a").replace(" a'", "\\nid'").replace("'", '"'), SHELL),
    "carriage return": (command_job(f"{TRAIN} a").replace(" a'", "\\rid'").replace("'", '"'), SHELL),
    "subshell": (command_job(f"{TRAIN} (id)"), SHELL),
    "long": (command_job(f"{TRAIN}{' a' * 5000}"), "at most 10,000 are allowed"),
    "no quotation mark": (command_job(f'{TRAIN} "a'), "quotation mark without its partner"),
    "pattern unquoted": (command_job("cd /opt/x && exec my tool {values} --level=2"), LISTED),
    "wildcard with a separator": (command_job("cd /opt/x && exec 'my tool' {values} --level=;"), SHELL),
    "environment before": (command_job(f"LD_PRELOAD=x.so {TRAIN}"), LISTED),
    "absolute path": (command_job(f"{TRAIN} /etc/passwd"), f"'/etc/passwd' {OUTSIDE}"),
    "path after =": (command_job(f"{TRAIN} --data=/etc"), OUTSIDE),
    "path after an option": (command_job(f"{TRAIN} -I/etc"), OUTSIDE),
    "path from a file": (command_job(f"{TRAIN} @/etc/x"), OUTSIDE),
    "path upwards": (command_job(f"{TRAIN} ../x"), OUTSIDE),
    "path upwards from an allowed one": (command_job(f"{TRAIN} /data/../etc"), OUTSIDE),
    "path upwards from the output": (command_job(f"{TRAIN} {{output_folder}}/../../x"), OUTSIDE),
    "wildcard upwards": (command_job("torchrun train_/../../x.py {values}"), OUTSIDE),
    "url": (command_job(f"{TRAIN} --data http://169.254.169.254/"), OUTSIDE),
    "file url": (command_job(f"{TRAIN} --data file:/etc/passwd"), OUTSIDE),
    "resume": (command_job(resume='"--load x"'), f"workload.resume: .*{LISTED}"),
    "resume with a command": (command_job(resume='"--resume {checkpoint} ; id"'), SHELL),
    "resume elsewhere": (command_job(resume='"--resume {checkpoint} /x"'), OUTSIDE),
    # Environment.
    "LD_PRELOAD": (command_job(environment='{ LD_PRELOAD = "x.so" }'), f"LD_PRELOAD: .*{NEVER}"),
    "LD_LIBRARY_PATH": (command_job(environment='{ LD_LIBRARY_PATH = "x" }'), NEVER),
    "LD_AUDIT": (command_job(environment='{ LD_AUDIT = "x" }'), NEVER),
    "PYTHONPATH": (command_job(environment='{ PYTHONPATH = "x" }'), NEVER),
    "PYTHONSTARTUP": (command_job(environment='{ PYTHONSTARTUP = "x" }'), NEVER),
    "PYTHONHOME": (command_job(environment='{ PYTHONHOME = "x" }'), NEVER),
    "PYTHONWARNINGS": (command_job(environment='{ PYTHONWARNINGS = "error::a.B" }'), NEVER),
    "PATH": (command_job(environment='{ PATH = "." }'), NEVER),
    "BASH_ENV": (command_job(environment='{ BASH_ENV = "x" }'), NEVER),
    "PACELINE_STORAGE": (command_job(environment='{ PACELINE_STORAGE = "x" }'), NEVER),
    "PERL5OPT": (command_job(environment='{ PERL5OPT = "x" }'), NEVER),
    "unlisted variable": (command_job(environment='{ CUDA_HOME = "x" }'), f"CUDA_HOME: .*{LISTED}"),
    "variable with a path": (command_job(environment='{ DATA_DIR = "/etc" }'), OUTSIDE),
    "variable with a list": (command_job(environment='{ DATA_DIR = "x:/etc" }'), OUTSIDE),
    # Import paths and parameters.
    "os": (workload_job(path="os:system"), f"workload.path: 'os:system' .*{LISTED}"),
    "own code": (workload_job(path="mine:Workload"), LISTED),
    "near an allowed path": (workload_job(path="tuner.workloadsx:W"), LISTED),
    "parameter": (
        workload_job('parameters = { folder = "/etc" }'),
        f"workload.parameters.folder: .*{OUTSIDE}",
    ),
    "parameter upwards": (workload_job('parameters = { text = "a/../../b" }'), OUTSIDE),
    "parameter, nested": (workload_job('parameters = { a = { b = [1, "~/x"] } }'), OUTSIDE),
    "parameter key": (workload_job('parameters = { a = { "/etc" = 1 } }'), OUTSIDE),
    "parameter url": (workload_job('parameters = { a = "file:///etc" }'), OUTSIDE),
    "parameter of Windows": (workload_job("parameters = { a = 'C:\\x' }"), OUTSIDE),
    "parameter with a line break": (workload_job('parameters = { a = "x\\ny" }'), "control character"),
    # Paths.
    "folder": (command_job(folder='"/"'), f"workload.folder: .*{OUTSIDE}"),
    "folder upwards": (command_job(folder='"../other"'), OUTSIDE),
    "metrics": (command_job(metrics='{ path = "/proc/self/environ" }'), f"metrics.path: .*{OUTSIDE}"),
    "metrics in a list": (command_job(metrics='{ source = "csv", path = ["a", "../b"] }'), OUTSIDE),
    "metrics upwards": (command_job(metrics='{ path = "{output_folder}/../../x" }'), OUTSIDE),
    "metrics by a variable": (command_job(metrics='{ path = "{python}" }'), OUTSIDE),
    "recording": (recorded_job("/etc/passwd"), f"probe.recording: .*{OUTSIDE}"),
    "recording upwards": (recorded_job("../../x.jsonl"), OUTSIDE),
    # Launchers.
    "python": (cluster_job('python = "./evil"'), f"cluster.python: 'python=./evil' .*{LISTED}"),
    "ssh": (
        cluster_job('[cluster.torchrun]\nhosts = ["node1"]\nconnect = "sh -c {command} {host}"', "torchrun"),
        LISTED,
    ),
    "host": (cluster_job('[cluster.torchrun]\nhosts = ["node1", "-oProxyCommand=x"]', "torchrun"), LISTED),
    "partition": (cluster_job('[cluster.slurm]\npartition = "big"', "slurm"), LISTED),
    "partition with options": (
        cluster_job('[cluster.slurm]\npartition = "gpu\\n#SBATCH --x"', "slurm"),
        "control character",
    ),
    "account": (cluster_job('[cluster.slurm]\naccount = "others"', "slurm"), f"slurm.account: .*{LISTED}"),
    "devices": (cluster_job('[cluster.slurm]\ngres = "gpu:8"', "slurm"), f"slurm.gres: .*{LISTED}"),
    "sbatch": (
        cluster_job('[cluster.slurm]\nextra = { prolog = "/x" }', "slurm"),
        f"extra.prolog: .*{LISTED}",
    ),
    "sbatch flag": (cluster_job("[cluster.slurm]\nextra = { exclusive = true }", "slurm"), LISTED),
    "image": (cluster_job('image = "evil/team/x"'), f"cluster.image: 'evil/team/x' .*{LISTED}"),
    "ray": (cluster_job('[cluster.ray]\naddress = "http://10.0.0.1"', "ray"), f"ray.address: .*{LISTED}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_job_is_refused(name: str) -> None:
    job_file, reason = HOSTILE[name]
    ending = "Change the job$" if NEVER in reason else "ask an administrator"
    with pytest.raises(JobError, match=f"(?s){reason}.*{ending}"):
        submitted(job_file)


FILES: dict[str, tuple[str, bytes, str]] = {
    "module": ("torch.py", b"", "ending '.py', so it counts as code"),
    "package": ("numpy/__init__.py", b"", "counts as code"),
    "library": ("x.so", b"", "counts as code"),
    "checkpoint that is unpickled": ("model.pth", b"", "counts as code"),
    "pickle": ("data.pkl", b"", "counts as code"),
    "shell script": ("run.sh", b"", "counts as code"),
    "no ending": ("Makefile", b"", "has no ending, so it counts as code"),
    "hidden": (".netrc.json", b"", "is a hidden file"),
    "settings": ("pyproject.toml", b"", "settings file"),
    "script as data": ("data.csv", b"#!/bin/sh\n", "begins like a program"),
    "program as data": ("data.bin", b"\x7fELF...", "begins like a program"),
    "word of the command": ("sub/train.py", b"", "has the name of a word of the command"),
    "package of the allow list": ("team/data.csv", b"", "take the place of team.train"),
    "upwards": ("../x.csv", b"", "not a path inside the workspace"),
    "upwards within": ("a/../../x.csv", b"", "not a path inside the workspace"),
    "absolute": ("/etc/x.csv", b"", "not a path inside the workspace"),
    "backslashes": ("..\\x.csv", b"", "not a path inside the workspace"),
    "nothing": ("", b"", "not a path inside the workspace"),
    "two spellings": ("a//x.csv", b"", "shortest form"),
    "line break": ("a\nb.csv", b"", "cannot be printed"),
    "NUL": ("a\0b.csv", b"", "cannot be printed"),
    "option": ("-rf.csv", b"", "begins with - or ~"),
    "long": (f"{'a' * 300}.csv", b"", "too long"),
    "deep": ("a/" * 20 + "x.csv", b"", "too long"),
    "job file": ("digits.toml", b"", "name of the job file"),
    "large": ("x.csv", b"x" * 1001, "too large; a file may have 1,000 bytes"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused(name: str) -> None:
    path, content, reason = FILES[name]
    with pytest.raises(JobError, match=reason):
        submitted(command_job(), {path: content}, name="digits")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("a.csv", "a.csv/b.csv"), "'a.csv' is a file and a folder"),
        (("a.csv", "b.csv"), "'b.csv' is too large; a file may have 1,000 bytes"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        submitted(command_job(), dict.fromkeys(names, b"x" * 800))


@pytest.mark.parametrize("name", ["../x", "a/b", " ", "x\n", "-x"])
def test_a_job_has_no_name_that_leaves_its_folder(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        submitted(workload_job(), name=name)


HONEST: dict[str, str] = {
    "workload": workload_job(),
    "workload with parameters": workload_job('parameters = { network = "mlp", width = 8 }'),
    "workload with data": workload_job('parameters = { folder = "/data/digits", text = "sub/text.txt" }'),
    "command": command_job(),
    "command with options": command_job(f"{TRAIN} --name 'my run' --model=resnet-18 --x={{seed}} 1e-3"),
    "command with data": command_job(f"{TRAIN} --data=/data/imagenet --more s3://bucket/x sub/x.csv"),
    "command with shell words": command_job("cd /opt/x && exec 'my tool' {values} --level=2"),
    "command with a wildcard": command_job("torchrun train_large.py {values}"),
    "command that resumes": command_job(resume='"--resume {checkpoint} --strict"'),
    "environment": command_job(
        environment='{ OMP_NUM_THREADS = "2", DATA_DIR = "/data/x", DATA_LR = "{learning_rate}" }'
    ),
    "unbuffered": command_job(environment='{ PYTHONUNBUFFERED = "1" }'),
    "metrics": command_job(metrics='{ source = "csv", path = ["{checkpoint}/v_*/m.csv", "logs/m.csv"] }'),
    "metrics in the output": command_job(metrics='{ path = "{output_folder}/m.jsonl" }'),
    "pattern": command_job(
        metrics="{ source = 'output', pattern = 'step (?P<step>\\d+) a=(?P<value>\\S+)' }"
    ),
    "slurm": cluster_job(
        '[cluster.slurm]\npartition = "gpu-a"\nextra = { constraint = "a100" }\ntime = "2h"', "slurm"
    ),
    "hosts": cluster_job('[cluster.torchrun]\nhosts = ["node1", "node2"]', "torchrun"),
    "python": cluster_job('python = "/opt/py"'),
    "image": cluster_job('image = "registry/team/train:1.0"\ncontainer = "docker"'),
    "resume option in its place": command_job(f"{TRAIN} {{resume}}", resume='"--resume {checkpoint}"'),
    "trainer elsewhere": command_job("mine", resume='"yes"') + '[cluster]\nlauncher = "remote"',
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_job_is_accepted(name: str) -> None:
    assert submitted(HONEST[name]).limit["seconds"] == 120.0


def test_recordings_and_data_are_accepted(tmp_path: Path) -> None:
    write_recording(grid(machines=("small",), strategies=("local_sgd",)), path := tmp_path / "runs.jsonl.gz")
    files = {"sub/runs.jsonl.gz": path.read_bytes()}
    assert submitted(recorded_job("sub/runs.jsonl.gz"), files, limits=LimitsSection()).name == "job"
    assert submitted(command_job(), {"a b/x.csv": b"1,2"}).files


def test_code_is_taken_where_the_settings_allow_it() -> None:
    allow = ALLOW.model_copy(update={"workspace_code": True})
    assert submitted(command_job(), {"train.py": b"print()"}, allow=allow).files
    with pytest.raises(JobError, match="not a path inside the workspace"):
        submitted(command_job(), {"../train.py": b"print()"}, allow=allow)


def test_a_plan_of_too_many_configurations_is_refused() -> None:
    rates = "{ low = 1e-6, high = 1.0, levels_per_decade = 1000 }"
    with pytest.raises(JobError, match=r"have 12,002 combinations, but this server takes at most 9,999"):
        submitted(workload_job().replace("[0.1, 0.2]", rates), limits=LimitsSection(configurations=9_999))


def test_a_price_above_the_limit_awaits_approval() -> None:
    priced = workload_job() + "[cluster]\nnodes = [1, 2]\ndollars_per_node_hour = 6.0"
    assert submitted(priced).limit == {"seconds": 120.0, "node_hours": 2 / 30, "dollars": pytest.approx(0.4)}
    for approval, state in (({"dollars": 0.5}, "queued"), ({"dollars": 0.3}, "awaiting_approval")):
        assert submitted(priced, approval=ApprovalSection(**approval)).state == state
    unlimited = submitted(priced.replace('time = "2m"', ""), approval=ApprovalSection(node_hours=9.0))
    assert (unlimited.limit["node_hours"], unlimited.state) == (None, "awaiting_approval")


def test_a_job_states_at_least_the_price_of_the_server() -> None:
    limits = LIMITS.model_copy(update={"least_dollars_per_node_hour": 3.0})
    priced = workload_job() + "[cluster]\ndollars_per_node_hour = "
    assert submitted(f"{priced}3.0", limits=limits).limit["dollars"] == pytest.approx(0.1)
    for text in (f"{priced}2.9", workload_job()):
        with pytest.raises(JobError, match=r"a node costs at least 3 dollars per hour; write 3 or more"):
            submitted(text, limits=limits)


def test_trainings_beyond_the_budget_are_refused_under_a_quota() -> None:
    for options in ({"verify": True}, {"confirm": 2}):
        assert (
            submitted(workload_job(), options=options, quota=Quota(jobs=3, dollars=1.0)).limit["dollars"] == 0
        )
        with pytest.raises(
            QuotaError, match=r"in addition to the budget.*A token with a quota cannot use this"
        ):
            submitted(workload_job(), options=options, quota=Quota(node_hours=1.0))


def test_a_refusal_is_a_problem_without_folders_of_the_server(client_of: Callable[..., TestClient]) -> None:
    answer = client_of().post("/api/v1/jobs", json={"job_file": recorded_job("missing.jsonl")})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(
        "job.toml: probe.recording: missing.jsonl: the recording cannot"
    )


def test_the_defaults_allow_only_the_workloads_of_paceline() -> None:
    defaults = AllowSection()
    allowed.check_allowed({"workload": {"path": "tuner.workloads.digits:Digits"}}, defaults)
    for workload in ({"command": "true"}, {"path": "mine:W"}, {"command": "x", "environment": {"PATH": "."}}):
        with pytest.raises(
            JobError, match=r"which has .*\. Change the job, or ask an administrator|no server"
        ):
            allowed.check_allowed({"workload": workload}, defaults)


def _models(annotation: Any) -> tuple[list[type[BaseModel]], bool, bool]:
    """Returns the sections in the type of a key, and whether it has other values and tables."""
    if isinstance(annotation, type):
        return ([annotation], False, False) if issubclass(annotation, BaseModel) else ([], True, False)
    if typing.get_origin(annotation) is dict:
        return [], False, True
    parts = [_models(part) for part in typing.get_args(annotation) if part is not type(None)]
    models = [model for found, _, _ in parts for model in found]
    return models, any(p[1] for p in parts) or not parts, any(p[2] for p in parts)


def _keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, key in model.model_fields.items():
        models, has_values, has_tables = _models(key.annotation)
        for inner in models:
            yield from _keys(inner, f"{above}{name}.")
        if has_tables:
            yield f"{above}{name}.*"
        if has_values:
            yield f"{above}{name}"


def test_every_key_of_a_job_file_is_decided() -> None:
    """Whoever adds a key to the job file has to decide in `allowed.py` what submitted jobs may set it to."""
    keys = set(_keys(Job))
    assert len(keys) > 90
    beyond = {"baseline.*", "space.batch_size", "space.learning_rate"}
    listed = {
        key
        for key in keys
        if not key.startswith("baseline") and allowed._decision(tuple(key.split("."))) == key
    }
    assert keys - listed - {key for key in keys if key.startswith("baseline")} == set()
    assert allowed.DECIDED - keys - beyond == set()


def test_a_key_that_nobody_decided_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed, "DECIDED", allowed.DECIDED - {"goal.trainings"})
    with pytest.raises(JobError, match=r"goal\.trainings: this server does not take jobs with this key"):
        submitted(workload_job().replace("[goal]", "[goal]\ntrainings = 2"))


def test_an_image_is_no_path_out_of_an_allowed_folder() -> None:
    allow = ALLOW.model_copy(update={"images": ("/images/*",)})
    assert submitted(cluster_job('image = "/images/a.sif"'), allow=allow).files == {}
    with pytest.raises(JobError, match=r"cluster.image: .*allow list"):
        submitted(cluster_job('image = "/images/../tmp/a.sif"'), allow=allow)
