"""Export the chosen values as an environment file."""

from __future__ import annotations

import re
import shlex

from tuner.report.launch.plan import LaunchPlan, head

#: A value that the shell and Docker read alike, without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]*")


def environment_file(plan: LaunchPlan) -> str:
    """Lines `NAME=value`: the chosen values as `PACELINE_...`, and what the command is given besides.

    A value is quoted only where the shell needs it: `docker --env-file` takes quotes for part of a value, and
    the head of the file then says so.

    Raises:
        ValueError: A value has several lines, which no environment file can hold.
    """
    variables = {f"PACELINE_{axis.upper()}": value for axis, value in plan.values.items()}
    variables |= plan.environment
    broken = [name for name, value in variables.items() if "\n" in value]
    if broken:
        raise ValueError(f"{broken[0]} has several lines, which an environment file cannot hold")
    quoted = [name for name, value in variables.items() if not _PLAIN.fullmatch(value)]
    file = shlex.quote(plan.file_name)
    how = [f"Use it in a shell: set -a; . ./{file}; set +a"]
    if quoted:
        how.append(f"Not for docker --env-file, which would keep the quotes of {', '.join(quoted)}")
    else:
        how.append(f"or: docker run --env-file {file} ...")
    how += [f"First, in the folder of the script: {line}" for line in plan.preparation]
    lines = [f"{name}={shlex.quote(value) if value else ''}" for name, value in variables.items()]
    return "\n".join([*head(plan, *how), *lines, ""])
