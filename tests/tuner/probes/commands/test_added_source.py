"""The metric source that `docs/extending.md` adds works as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tuner.job import METRIC_SOURCES, MetricsSection
from tuner.probes.commands.metric_source import SourceContext, open_source

PAGE = Path(__file__).resolve().parents[4] / "docs" / "extending.md"


def test_the_added_source_reads_once_it_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = PAGE.read_text().partition("## Add a metric source")[2]
    source, registration = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:2]
    entry = re.fullmatch(r'    "(\w+)": "tuner\.probes\.commands\.(\w+:\w+)",\n', registration)
    assert entry is not None
    name, reader = entry.groups()
    (tmp_path / f"{reader.partition(':')[0]}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="'json', 'csv', 'tensorboard' or 'output'"):
        MetricsSection(source=name, path="log.txt")
    monkeypatch.setitem(METRIC_SOURCES, name, reader)
    metrics = MetricsSection(source=name, path="log.txt", value="accuracy")
    log = tmp_path / "log.txt"
    log.write_text("step=1 accuracy=0.1 of an earlier run\n")
    opened = open_source(
        SourceContext(
            metrics=metrics,
            metrics_file=tmp_path / "metrics.jsonl",
            path_of=tmp_path.joinpath,
            log_files=dict,
        )
    )
    with log.open("a") as file:
        file.write("step=100 accuracy=0.93\nstep=x accuracy=0.94\nloss=0.2 step=200\nstep=300")
    lines = opened.read(1.0, has_ended=False)
    assert [(line.step, line.value) for line in lines] == [(100.0, 0.93), (200.0, None)]
    assert [line.step for line in opened.read(2.0, has_ended=True)] == [300.0]
    assert len(opened.warnings) == 1
    assert opened.unmatched == {"loss": "loss = 0.2"}
    assert "log.txt" in opened.place
