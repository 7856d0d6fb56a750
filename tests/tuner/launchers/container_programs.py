"""Programs that stand for container runtimes: they check options and run commands without a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROGRAM = '''#!/usr/bin/env python3
"""Stands for a container runtime: checks its options, and runs the command with the given variables."""
import json, os, pathlib, sys

name, args = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
(pathlib.Path(sys.argv[0]).parent / "calls.jsonl").open("a").write(json.dumps([name, *args]) + "\\n")
flags, names, folder = [], [], None
if name in ("docker", "podman"):
    assert args.pop(0) == "run", args
    while args[0].startswith("--"):
        key, _, value = args.pop(0).partition("=")
        if key == "--env":
            assert "=" not in value, "the value of a variable is on the command line"
            names.append(value)
        elif key == "--workdir":
            folder = value
        elif key == "--mount":
            kind, source, target = value.split(",")
            assert (kind, source[7:], os.path.isdir(source[7:])) == ("type=bind", target[7:], True), value
        elif key == "--user":
            assert value == f"{os.getuid()}:{os.getgid()}", value
        else:
            assert f"{key}={value}".rstrip("=") in (
                "--rm", "--network=host", "--ipc=host", "--entrypoint=/bin/sh", "--userns=keep-id"
            ), (key, value)
    command = ["/bin/sh", *args[1:]]
else:
    assert args.pop(0) == "exec", args
    while args[0].startswith("--"):
        key = args.pop(0)
        assert key in ("--cleanenv", "--no-home", "--pwd", "--bind"), key
        if key in ("--pwd", "--bind"):
            value = args.pop(0)
            folder = value if key == "--pwd" else folder
    command = args[1:]
    names = [n for n in os.environ if n.startswith("APPTAINERENV_")]
variables = {n.removeprefix("APPTAINERENV_"): os.environ[n] for n in names if n in os.environ}
os.chdir(folder)
os.execve("/bin/sh", command, {"PATH": "/usr/bin:/bin", "IN_CONTAINER": name, **variables})
'''


def install_runtimes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts docker, podman and apptainer into a new folder on PATH; their calls are in `calls.jsonl` there."""
    folder.mkdir()
    for name in ("docker", "podman", "apptainer"):
        (folder / name).write_text(PROGRAM)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder
