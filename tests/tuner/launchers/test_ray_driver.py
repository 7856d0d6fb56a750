"""What the driver on a Ray cluster reports of a node that ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner.launchers import JobState, NodeJob, RayNodes


@pytest.mark.slow  # needs ray
@pytest.mark.parametrize(
    ("name", "words", "state", "memory_ran_out"),
    [
        ("OutOfMemoryError", "Task was killed: the node is running low on memory.", "failed", True),
        ("NodeDiedError", "the node died", "lost", False),
    ],
)
def test_memory_that_ran_out_is_no_loss_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str, state: str, memory_ran_out: bool
) -> None:
    ray = pytest.importorskip("ray")
    from tuner.launchers.ray_driver import Driver

    error = getattr(ray.exceptions, name)(words)
    (tmp_path / "task.json").write_text(json.dumps({"num_nodes": 1}))
    (tmp_path / "ray_task.json").write_text(
        json.dumps({"bundle": {"CPU": 1}, "python": None, "patience_seconds": 1})
    )

    def get(_ended: object) -> bool:
        raise error

    monkeypatch.setattr(ray, "get", get)
    driver = Driver(tmp_path)
    driver._report("placed")
    assert driver._takes_end(None, 0)
    driver._report(state, ended=True)
    job = NodeJob(identity="1", folder=tmp_path, num_nodes=1, devices_per_node=1)
    view = RayNodes("http://127.0.0.1:1").poll(job, "")
    assert (view.state, view.memory_ran_out) == (JobState(state), memory_ran_out)
    assert str(error) in view.detail
    assert ("ran out of memory" in view.detail) == memory_ran_out
