from __future__ import annotations

import os
import subprocess
from dataclasses import replace

from tuner.launchers.process_records import ProcessRecord


def test_a_process_that_is_dead_has_no_record() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert ProcessRecord.of(process.pid) is None


def test_a_later_process_with_the_same_number_is_not_the_recorded_one() -> None:
    record = ProcessRecord.of(os.getpid())
    assert record is not None
    assert record.is_alive
    assert not replace(record, started=record.started - 1).is_alive
