"""The printed section is one that a job takes, and says how sure each figure is."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.calibration import Constants, Figure, Link, machine_section
from tuner.calibration.section_text import bandwidth, duration
from tuner.domain.section import parse_duration
from tuner.job import Job
from tuner.job.sections import MachineSection
from tuner.job.values import parse_bandwidth


def figure(value: float) -> Figure:
    return Figure(value=value, low=0.9 * value, high=1.2 * value)


LINK = Link(latency=figure(3.5e-4), seconds_per_byte=figure(1 / 1.25e9), misfit=0.04)
MESSAGES = Link(latency=figure(8e-5), seconds_per_byte=figure(1 / 4e8), misfit=0.02)
CONSTANTS = Constants(
    fixed_seconds=figure(1.234e-3),
    seconds_per_sample=figure(3.21e-8),
    step_misfit=0.07,
    neighbour_slowdown=1.2,
    jitter=figure(0.11),
    persistent=0.4,
    overlap=figure(1.7),
    collective=LINK,
    messages=MESSAGES,
    parameter_bytes=4096,
    batch_sizes_per_rank=(4, 64),
    rank_counts=(2,),
)


def test_the_section_is_one_that_a_job_takes() -> None:
    machine = MachineSection.model_validate(tomllib.loads(machine_section(CONSTANTS))["cluster"]["machine"])
    assert machine.fixed_seconds == pytest.approx(1.234e-3)
    assert machine.seconds_per_sample == pytest.approx(3.21e-8)
    assert machine.latency == pytest.approx(3.5e-4)
    assert machine.bandwidth == pytest.approx(1.25e9)
    assert machine.message_latency == pytest.approx(8e-5)
    assert machine.message_bandwidth == pytest.approx(4e8)
    assert (machine.jitter, machine.persistent, machine.overlap) == (0.11, 0.4, 1.7)


def test_the_section_describes_the_cluster_that_constants_make() -> None:
    text = f"[cluster]\nnodes = [1, 2]\n{machine_section(CONSTANTS)}"
    described = {
        "name": "calibrated",
        "workload": {"path": "tuner.workloads.digits:Digits"},
        "goal": {"metric": "accuracy", "target": 0.9},
        "space": {"batch_size": [16], "learning_rate": [0.1]},
        "probe": {"kind": "emulated"},
        **tomllib.loads(text),
    }
    virtual = Job.model_validate(described).resolved_cluster().virtual
    assert virtual is not None
    made = CONSTANTS.virtual_cluster(overlap=1.5)
    for field in fields(made):
        expected = getattr(made, field.name)
        assert getattr(virtual, field.name) == (
            pytest.approx(expected, rel=1e-3) if isinstance(expected, float) else expected
        ), field.name


def test_what_could_not_be_reported_is_left_to_the_default() -> None:
    text = machine_section(replace(CONSTANTS, overlap=None))
    section = tomllib.loads(text)["cluster"]["machine"]
    assert "overlap" not in section
    assert "overlap is not set" in text


def test_warnings_and_spreads_stand_beside_the_figures() -> None:
    text = machine_section(
        replace(CONSTANTS, warnings=("4 ranks share 2 cores",)), made_by="Measured by\nsomeone"
    )
    assert "# Warning: 4 ranks share 2 cores" in text
    assert "# Measured by\n# someone" in text
    (line,) = (line for line in text.splitlines() if line.startswith("fixed_seconds"))
    assert "1.111ms to 1.481ms" in line
    assert "7%" in text
    assert "20% slower when neighbors are busy" in text


@given(st.floats(1e-9, 1e4))
def test_a_duration_is_read_as_it_was_meant(seconds: float) -> None:
    assert parse_duration(duration(seconds)) == pytest.approx(seconds, rel=1e-3)


@given(st.floats(1e-13, 1.0))
def test_a_bandwidth_is_read_as_it_was_meant(seconds_per_byte: float) -> None:
    assert 1 / parse_bandwidth(bandwidth(seconds_per_byte)) == pytest.approx(seconds_per_byte, rel=1e-3)
