"""The engine for this host: nodes are processes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from tuner.domain.errors import ProbeError
from tuner.launchers.launcher import JobState
from tuner.launchers.node_agent import descendants, kill_job
from tuner.launchers.process_records import ProcessRecord
from tuner.launchers.scheduler_backend import EngineView, NodeEngine, NodeJob


class LocalNodes(NodeEngine):
    """Starts each node's starter as a process of this host.

    A starter ends what it runs as soon as this process is gone: it reads an input that is held open here.
    """

    name = "local"

    def __init__(self) -> None:
        self._starters: dict[str, list[subprocess.Popen[bytes]]] = {}

    def begin(self, job: NodeJob) -> str:
        starters = []
        for node in range(job.num_nodes):
            with (job.folder / f"starter-{node}.err").open("ab") as errors:
                try:
                    starters.append(
                        subprocess.Popen(
                            [sys.executable, str(job.starter), str(job.folder), str(node), "--watch-input"],
                            stdin=subprocess.PIPE,
                            stdout=errors,
                            stderr=errors,
                            start_new_session=True,
                        )
                    )
                except OSError as error:
                    raise ProbeError(f"no process can be started on this host: {error}") from error
        self._starters[job.identity] = starters
        records = [ProcessRecord.of(starter.pid) for starter in starters]
        return ",".join(f"{r.process}:{r.started}" for r in records if r is not None)

    def look(self, job: NodeJob, engine_id: str) -> EngineView:
        starters = self._starters.get(job.identity)
        if starters is None:
            alive = any(record.is_alive for record in _recorded(engine_id))
            return EngineView(state=JobState.RUNNING if alive else JobState.SUCCEEDED)
        if any(starter.poll() is None for starter in starters):
            return EngineView(state=JobState.RUNNING)
        failed = any(starter.returncode != 0 for starter in starters)
        codes = ", ".join(str(starter.returncode) for starter in starters)
        return EngineView(
            state=JobState.FAILED if failed else JobState.SUCCEEDED, detail=f"its starters ended with {codes}"
        )

    def end(self, job: NodeJob, engine_id: str) -> None:
        for starter in self._starters.pop(job.identity, []):
            if starter.poll() is None:
                kill_tree(starter.pid)
            starter.wait()
            if starter.stdin is not None:
                with contextlib.suppress(OSError):
                    starter.stdin.close()
        for record in _recorded(engine_id):
            if record.is_alive:
                kill_tree(record.process)
        kill_job(job.identity)

    def close(self) -> None:
        return


def kill_tree(process: int) -> None:
    """Kills a process and all that came from it, the youngest last so that none can start another unseen."""
    for doomed in (process, *descendants(process)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(doomed, signal.SIGKILL)


def _recorded(engine_id: str) -> list[ProcessRecord]:
    pairs = (entry.partition(":") for entry in engine_id.split(",") if entry)
    return [ProcessRecord(process=int(process), started=int(started)) for process, _, started in pairs]
