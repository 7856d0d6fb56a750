"""Runs a calibration with a launcher: times steps, all-reduces and messages, and fits the constants."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.calibration.constants import Constants, Figure, Link
from tuner.calibration.fits import fit_line, fit_overlap, jitter_of
from tuner.calibration.plan import CalibrationPlan, sizes_to_send
from tuner.domain.errors import ProbeError
from tuner.launchers import JobState, Launcher, RankTask

Array = npt.NDArray[np.float64]
Listen = Callable[[str], None]

#: Largest jitter that a calibration returns, since `cluster.machine.jitter` in a job file must be below 1.
_LARGEST_JITTER = 0.99
#: A warning is given if the relative error of a fitted cost model at a measured size is larger than this.
_BAD_MISFIT = 0.35
_POLL_SECONDS = 0.02
#: Sizes of vectors, in bytes, in the first short measurement of links; and the longest time of an all-reduce
#: in the later measurements, in seconds.
_FIRST_BYTES = (4 * 1024, 32 * 1024)
_LONGEST_SECONDS = 0.1


def calibrate(plan: CalibrationPlan, launcher: Launcher, folder: Path, listen: Listen) -> Constants:
    """Measures the times of steps and links on the nodes of a job, and fits the constants of the cost models.

    - Steps: windows of consecutive steps with alternating batch sizes, first on one rank alone, then on as
      many ranks as have CPU cores of their own.
    - All-reduces: several sizes at each number of nodes. The cost model of a ring all-reduce is fitted to the
      numbers of ranks at which each rank has CPU cores of its own.
    - Messages between two ranks: several sizes.

    Args:
        plan: Job, batch sizes, numbers of nodes and effort.
        launcher: Launcher that starts the ranks.
        folder: Existing folder for the logs of the ranks.
        listen: Function that is called with a description of each measurement when it starts.

    Raises:
        ProbeError: A rank failed or did not report; the message contains every rank's message.
    """
    return _Calibration(plan, launcher, folder, listen).run()


class _Calibration:
    """One calibration: the measurements, and the warnings that they give.

    Args:
        plan: Job, batch sizes, numbers of nodes and effort.
        launcher: Launcher that starts the ranks.
        folder: Existing folder for the logs of the ranks.
        listen: Function that is called with a description of each measurement when it starts.
    """

    def __init__(self, plan: CalibrationPlan, launcher: Launcher, folder: Path, listen: Listen) -> None:
        self._plan, self._launcher, self._folder, self._listen = plan, launcher, folder, listen
        self._payload = plan.to_payload()
        self._devices = plan.job.cluster.devices_per_node
        self._cluster = plan.job.resolved_cluster()
        self._warnings: list[str] = []

    def run(self) -> Constants:
        """Measures steps, all-reduces and messages; returns the constants of the cost models."""
        plan = self._plan
        self._listen("timing steps of one rank")
        alone = self._task("timed_steps:time_steps", self._payload, num_nodes=1, devices=1)[0]
        neighbors = self._neighbors()
        sizes = plan.batch_sizes_per_rank
        means = _means(alone["rounds"])
        steps = fit_line(np.ones(len(sizes)), np.array(sizes, dtype=float), means)
        jitter, persistent = jitter_of([rank["rounds"] for rank in neighbors or [alone]])
        slowdown = 1.0
        if neighbors:
            combined = np.median([_means(rank["rounds"]) for rank in neighbors], axis=(0, 1))
            slowdown = float(np.median(combined / np.median(means, axis=0)))
        sent = sizes_to_send(alone["parameter_bytes"], most=self._most_bytes())
        collective = self._collectives(sent)
        messages = self._messages(sent)
        within = None
        if not self._is_one_host and self._devices > 1:
            within = self._collectives(sent, node_counts=(1,))
        overlap = self._overlap(collective, alone["parameter_bytes"], jitter)
        self._warn_of_misfits(steps.misfit, collective)
        return Constants(
            fixed_seconds=steps.fixed,
            seconds_per_sample=steps.per_unit,
            step_misfit=steps.misfit,
            neighbour_slowdown=slowdown,
            jitter=_bounded(jitter),
            persistent=persistent,
            overlap=overlap,
            collective=collective,
            messages=messages,
            within_node=within,
            parameter_bytes=alone["parameter_bytes"],
            batch_sizes_per_rank=sizes,
            rank_counts=tuple(nodes * self._devices for nodes in plan.node_counts),
            warnings=tuple(self._warnings),
        )

    @property
    def _is_one_host(self) -> bool:
        return self._plan.job.cluster.nodes_share_host

    def _has_cores(self, num_ranks: int) -> bool:
        threads = self._plan.job.cluster.threads_per_rank
        return not self._is_one_host or num_ranks * threads <= max(_cores(), threads)

    def _neighbors(self) -> list[Any]:
        """Times steps on several ranks at the same time, as many as have CPU cores of their own.

        Returns the result of each rank; empty if there are cores for only one node.
        """
        counts = [n for n in self._plan.node_counts if self._has_cores(n * self._devices)]
        if not counts:
            return []
        num_nodes = counts[-1]
        self._listen(f"timing steps of {num_nodes * self._devices} ranks at once")
        results = self._task("timed_steps:time_steps", self._payload, num_nodes=num_nodes)
        return [results[rank] for rank in sorted(results)]

    def _most_bytes(self) -> float:
        """Estimates by a short measurement how many bytes an all-reduce of `_LONGEST_SECONDS` can have."""
        first = replace(self._plan, effort=replace(self._plan.effort, rounds=1, exchanges=3))
        self._listen("estimating the speed of the links")
        results = self._task(
            "timed_collectives:time_all_reduces",
            {"plan": first.to_payload(), "sizes": list(_FIRST_BYTES)},
            num_nodes=self._plan.node_counts[0],
        )
        small, large = np.array([result["rounds"][0] for result in results.values()]).min(axis=(0, 2))
        per_byte = max(float(large - small), 0.0) / (_FIRST_BYTES[1] - _FIRST_BYTES[0])
        return _LONGEST_SECONDS / per_byte if per_byte > 0 else math.inf

    def _collectives(self, sizes: tuple[int, ...], node_counts: tuple[int, ...] | None = None) -> Link:
        measured: dict[int, Array] = {}
        for num_nodes in node_counts or self._plan.node_counts:
            num_ranks = num_nodes * self._devices
            where = " within one node" if num_nodes == 1 else ""
            self._listen(f"timing all-reduces of {num_ranks} ranks{where}")
            results = self._task(
                "timed_collectives:time_all_reduces",
                {"plan": self._payload, "sizes": list(sizes)},
                num_nodes=num_nodes,
            )
            # The rank that joins an all-reduce last does not wait for others: the shortest time is that of
            # the all-reduce.
            of_all = np.array([results[rank]["rounds"] for rank in sorted(results)])
            measured[num_ranks] = of_all.min(axis=0).mean(axis=2)
        fitted = [p for p in measured if self._has_cores(p)] or [min(measured)]
        for num_ranks in measured:
            if not self._has_cores(num_ranks):
                what = (
                    "the constants of links include the time of waiting for a core"
                    if num_ranks in fitted
                    else "their all-reduces also wait for a core, which the constants do not include"
                )
                self._warnings.append(f"{num_ranks} ranks share {_cores()} cores: {what}")
        hops, bytes_moved = _ring_terms([(p, n) for p in fitted for n in sizes])
        line = fit_line(hops, bytes_moved, np.concatenate([measured[p] for p in fitted], axis=1))
        further = [(p, n) for p in measured if p not in fitted for n in sizes]
        hops, bytes_moved = _ring_terms(further)
        law = line.fixed.value * hops + line.per_unit.value * bytes_moved
        seen = [float(np.median(measured[p][:, sizes.index(n)])) for p, n in further]
        return Link(
            latency=line.fixed,
            seconds_per_byte=line.per_unit,
            misfit=line.misfit,
            from_law=tuple(
                (p, n, float(said), s) for (p, n), said, s in zip(further, law, seen, strict=True)
            ),
        )

    def _messages(self, sizes: tuple[int, ...]) -> Link:
        self._listen("timing messages between two ranks")
        payload = {"plan": self._payload, "sizes": list(sizes), "one_host": self._is_one_host}
        results = self._task("timed_messages:time_messages", payload, num_nodes=2, devices=1)
        seconds = np.array(results[0]["rounds"]).mean(axis=2)
        # Request and reply: two latencies, and the vector is sent twice.
        line = fit_line(np.full(len(sizes), 2.0), 2.0 * np.array(sizes), seconds)
        return Link(latency=line.fixed, seconds_per_byte=line.per_unit, misfit=line.misfit)

    def _overlap(self, collective: Link, parameter_bytes: int, jitter: Figure) -> Figure | None:
        plan = self._plan
        num_nodes = plan.node_counts[0]
        num_ranks = num_nodes * self._devices
        batch_size = plan.batch_sizes_per_rank[len(plan.batch_sizes_per_rank) // 2]
        self._listen(f"timing steps of {num_ranks} ranks with and without their all-reduce")
        results = self._task(
            "timed_collectives:time_overlap",
            {"plan": self._payload, "batch_size": batch_size},
            num_nodes=num_nodes,
        )
        alone, combined = (
            np.max([[np.mean(steps) for steps in found[kind]] for found in results.values()], axis=0)
            for kind in ("alone", "together")
        )
        hops, bytes_moved = _ring_terms([(num_ranks, parameter_bytes)])
        exchange = collective.latency.value * hops[0] + collective.seconds_per_byte.value * bytes_moved[0]
        return fit_overlap(alone, combined, float(exchange), jitter=jitter.value, num_ranks=num_ranks)

    def _warn_of_misfits(self, step_misfit: float, collective: Link) -> None:
        if step_misfit > _BAD_MISFIT:
            self._warnings.append(
                f"measured step times differ by up to {step_misfit:.0%} from the fitted straight line, "
                "so predictions are only valid near the timed batch sizes"
            )
        if collective.misfit > _BAD_MISFIT:
            self._warnings.append(
                f"measured times of all-reduces differ by up to {collective.misfit:.0%} from "
                "the fitted cost model"
            )

    def _task(
        self, function: str, payload: Mapping[str, Any], *, num_nodes: int, devices: int | None = None
    ) -> Mapping[int, Any]:
        """Runs a function on ranks, and returns the result of each rank.

        Args:
            function: `module:function` within `tuner.calibration`.
            payload: Plain data that each rank gets.
            num_nodes: Number of nodes.
            devices: Number of ranks per node; None for the number that the job states.
        """
        task = RankTask(
            function=f"tuner.calibration.{function}", payload=payload, folder=self._folder.resolve()
        )
        handle = self._launcher.submit(
            task, num_nodes=num_nodes, devices_per_node=self._devices if devices is None else devices
        )
        limit = self._plan.job.probe.hang_seconds
        while not (status := self._launcher.poll(handle)).state.has_ended:
            if status.seconds_since_progress > limit:
                self._launcher.cancel(handle)
                raise ProbeError(
                    f"{handle.num_ranks} ranks reported nothing for {limit:g} s while they ran {function}; "
                    "if a measurement takes longer on these nodes, raise probe.hang_timeout"
                )
            time.sleep(_POLL_SECONDS)
        if status.state is not JobState.SUCCEEDED:
            words = "\n".join(f"rank {failure.rank}: {failure.reason}" for failure in status.failures)
            last = (words.strip() or "the ranks reported no reason").splitlines()[-1]
            raise ProbeError(f"{handle.num_ranks} ranks failed while {function} ran: {last}\n{words}")
        return status.results


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _means(rounds: list[list[list[float]]]) -> Array:
    """Returns the mean step time by round and batch size. Unlike a median, it includes slow steps."""
    return np.array([[float(np.mean(steps)) for steps in sizes] for sizes in rounds])


def _ring_terms(places: list[tuple[int, int]]) -> tuple[Array, Array]:
    """Returns the two inputs of the cost model `ring_all_reduce_seconds` for pairs of ranks p and bytes n.

    They are the number of hops, 2 (p - 1), and the bytes moved, 2 ((p - 1) / p) n.
    """
    p = np.array([ranks for ranks, _ in places], dtype=float)
    n = np.array([num_bytes for _, num_bytes in places], dtype=float)
    return 2 * (p - 1), 2 * (p - 1) / np.maximum(p, 1) * n


def _bounded(jitter: Figure) -> Figure:
    value, low, high = (min(x, _LARGEST_JITTER) for x in (jitter.value, jitter.low, jitter.high))
    return Figure(value=value, low=low, high=high)
