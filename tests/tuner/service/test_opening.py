"""What a study's fingerprint knows of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.service import opening


def test_the_models_of_accelerators_are_named_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert opening._accelerators(tmp_path) == []
    for bus in ("0000:17:00.0", "0000:65:00.0"):
        folder = tmp_path / bus
        folder.mkdir()
        (folder / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 42\n")
    assert opening._accelerators(tmp_path) == ["NVIDIA H200", "NVIDIA H200"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert opening._accelerators(tmp_path)[-1] == "CUDA_VISIBLE_DEVICES="


def test_where_no_accelerator_is_the_words_are_those_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_accelerators", lambda: [])
    assert opening.hardware().endswith("GiB")
    monkeypatch.setattr(opening, "_accelerators", lambda: ["NVIDIA H200"])
    assert opening.hardware().endswith("GiB, NVIDIA H200")


def test_a_budget_from_a_flag_leaves_unstated_what_the_file_does_not_state(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(
        "[workload]\ncommand = 'train {learning_rate} {batch_size}'\n[goal]\ntarget = 0.9\n"
        "[space]\nbatch_size = [8]\nlearning_rate = [0.1]\n[budget]\nprobes = 3\n"
    )
    plain = opening.open_job(path)
    limited = opening.open_job(path, time_budget="60s")
    assert (limited.job.budget.time, limited.job.budget.probes) == (60.0, 3)
    assert not limited.job.cluster.states_threads
    assert limited.fingerprint == plain.fingerprint
