"""`paceline run` on one device: digits, and a language model large enough to keep a GPU busy."""

from __future__ import annotations

from benchmarks.device_checks.device_load import sampled_load
from benchmarks.device_checks.findings import Findings
from benchmarks.device_checks.paceline_runs import report, run_paceline

_DIGITS = """
name = "digits"

[workload]
path = "benchmarks.device_checks.workloads:CheckedDigits"
parameters = {{ device = "{device}", network = "cnn", width = 32 }}

[workload.optimizer]
name = "sgd"
momentum = 0.5

[cluster]
nodes = [1]

[goal]
metric = "accuracy"
target = 0.93

[space]
batch_size = {{ low = 16, high = 256 }}
learning_rate = {{ low = 1e-3, high = 0.3 }}

[baseline]
batch_size = 32
learning_rate = 0.01

[probe]
hang_timeout = "10m"

[budget]
time = "{budget}"
"""

_CHAR_LM = """
name = "char-lm"

[workload]
path = "benchmarks.device_checks.workloads:CheckedCharLM"

[workload.parameters]
device = "{device}"
width = {width}
depth = {depth}
heads = {heads}
context = {context}
validation_samples = {validation_samples}

[workload.optimizer]
name = "adamw"
weight_decay = 0.01

[workload.schedule]
name = "constant"
warmup_samples = 500

[cluster]
nodes = [1]

[goal]
metric = "bits_per_character"
target = {target}

[space]
batch_size = {{ low = 16, high = 128 }}
learning_rate = {{ low = 1e-4, high = {highest_rate} }}

[baseline]
batch_size = 32
learning_rate = {rate}

[probe]
hang_timeout = "10m"

[budget]
time = "{budget}"
"""

#: About 42 million parameters: 45 ms a step of 32 windows at 45 TFLOP/s, so that the device is never idle.
_LARGE = {
    "width": 768,
    "depth": 6,
    "heads": 12,
    "context": 256,
    "validation_samples": 256,
    "target": 3.4,
    "rate": 5e-4,
    "highest_rate": 3e-3,
}
_SMALL = {
    "width": 32,
    "depth": 1,
    "heads": 2,
    "context": 32,
    "validation_samples": 64,
    "target": 4.2,
    "rate": 3e-3,
    "highest_rate": 3e-2,
}


def check_digits(found: Findings) -> None:
    """The job of `examples/digits.toml` on one device, with a target that many configurations reach."""
    job = found.folder / "digits.toml"
    job.write_text(_DIGITS.format(device=found.device, budget=found.budget("40s")))
    report(found, run_paceline(job))


def check_char_lm(found: Findings) -> None:
    """The language model: its steps are long enough that a GPU works without a pause."""
    job = found.folder / "char_lm.toml"
    sizes = _SMALL if found.is_cpu else _LARGE
    job.write_text(_CHAR_LM.format(device=found.device, budget=found.budget("70s"), **sizes))
    with sampled_load() as load:
        tuned = run_paceline(job)
    if load.utilizations:
        found.note("device_is_busy_share", load.busiest_share())
        found.note("device_memory_mebibytes", max(load.memory_mebibytes))
    timings = [rank for probe in tuned.probes for m in probe.slices for rank in m.ranks]
    if timings:
        last = timings[-1]
        found.note(
            "step_milliseconds",
            {
                "samples": last.batch_size,
                **{p: 1000 * getattr(last, p).median for p in ("step", "compute", "input")},
            },
        )
    report(found, tuned)
