"""A batch that does not fit: a real allocation failure is recognised, and smaller batches are trained."""

from __future__ import annotations

from benchmarks.device_checks.findings import Findings
from benchmarks.device_checks.paceline_runs import report, run_paceline
from tuner.domain.measurement import Outcome

_JOB = """
name = "hungry"

[workload]
path = "benchmarks.device_checks.workloads:HungryDigits"

[workload.parameters]
device = "{device}"
bytes_per_sample = {bytes_per_sample}
headroom_bytes = {headroom_bytes}

[workload.optimizer]
name = "sgd"
momentum = 0.9

[cluster]
nodes = [1]

[goal]
metric = "accuracy"
target = 0.9

[space]
batch_size = {{ low = 32, high = 1024 }}
learning_rate = {{ low = 1e-3, high = 0.3 }}

[baseline]
batch_size = 1024
learning_rate = 0.05

[probe]
hang_timeout = "10m"

[budget]
time = "{budget}"
"""

#: On the CPU: of the address space that is left, 1024 samples want twice as much and 256 half.
_CPU_HEADROOM_BYTES = 2 * 2**30
_CPU_BYTES_PER_SAMPLE = 4 * 2**20


def check(found: Findings) -> None:
    """The present settings do not fit; the answer must come from batches that do."""
    bytes_per_sample = _CPU_BYTES_PER_SAMPLE
    if not found.is_cpu:
        # 1024 samples want twice the device's memory, 256 half of it.
        bytes_per_sample = 2 * _device_bytes() // 1024
    job = found.folder / "hungry.toml"
    job.write_text(
        _JOB.format(
            device=found.device,
            bytes_per_sample=bytes_per_sample,
            headroom_bytes=_CPU_HEADROOM_BYTES,
            budget=found.budget("40s"),
        )
    )
    tuned = run_paceline(job)
    failed = [p.configuration.batch_size for p in tuned.probes if p.outcome is Outcome.OUT_OF_MEMORY]
    trained = [
        p.configuration.batch_size
        for p in tuned.probes
        if p.outcome is not Outcome.OUT_OF_MEMORY and any(m.samples for m in p.slices)
    ]
    found.note("batch_sizes_that_failed", failed)
    found.note("batch_sizes_that_trained", trained)
    found.expect("out_of_memory_is_recognised", 1024 in failed)
    found.expect("smaller_batches_were_trained", bool(trained) and max(trained) < min(failed, default=0))
    no_other = all(not p.outcome.is_fault for p in tuned.probes)
    found.expect("nothing_else_failed", no_other)
    # A probe that fits reports its own peak: scratch of the batch at least, and no more than there is.
    if trained and not found.is_cpu:
        share = tuned.peak_bytes / (bytes_per_sample * max(trained))
        found.require("peak_over_scratch", share, at_least=1.0, at_most=1.5)
    found.expect("peak_is_reported", tuned.peak_bytes > 0)
    report(found, tuned)


def _device_bytes() -> int:
    """Memory of the device; asked in this process, which trains nothing."""
    import torch

    total: int = torch.cuda.get_device_properties(0).total_memory
    return total
