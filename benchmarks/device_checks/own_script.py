"""An own script on the device: Hugging Face's `Trainer` on a tiny model made from its configuration."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

from benchmarks.device_checks.findings import Findings, SkippedError
from benchmarks.device_checks.paceline_runs import report, run_paceline

_NEEDED = ("transformers", "accelerate")

_JOB = """
name = "trainer"

[workload]
command = "{{python}} trainer_script.py --device {device} --lr {{learning_rate}} --batch-size {{batch_size}}"
one_per = "job"
resume = "--resume {{checkpoint}}"
epoch_samples = 4096

[workload.environment]
HF_HUB_OFFLINE = "1"
WANDB_DISABLED = "true"

[workload.optimizer]
name = "adamw"

[goal]
metric = "accuracy"
target = 0.9

[space]
batch_size = {{ low = 16, high = 128 }}
learning_rate = {{ low = 3e-4, high = 1e-2 }}

[baseline]
batch_size = 32
learning_rate = 2e-3

[probe]
hang_timeout = "10m"

[budget]
time = "{budget}"
"""


def check(found: Findings) -> None:
    """The job tunes a script that knows nothing of Paceline but its callback."""
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise SkippedError(f"{package} is not installed")
    shutil.copy(Path(__file__).with_name("trainer_script.py"), found.folder)
    job = found.folder / "trainer.toml"
    job.write_text(_JOB.format(device=found.device, budget=found.budget("50s")))
    tuned = run_paceline(job)
    devices = {
        json.loads(path.read_text())["device"] for path in sorted(found.folder.rglob("trained_on.json"))
    }
    found.note("trained_on", sorted(devices))
    found.expect("every_script_trained_on_the_device", devices == {found.device}, f"on {sorted(devices)}")
    report(found, tuned)
