"""Synchronous all-reduce: gradients averaged over all ranks before every step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from search_spaces import traits_of
from tuner.strategies.moments import Moment, moment, seconds_between
from tuner.strategies.strategy import Exchange, Links, Share, Strategy

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket
    from torch.distributed import ProcessGroup

# torch renamed the flag and warns of the old name.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_BUFFERS_APART: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}


@dataclass(kw_only=True, slots=True)
class _Pending:
    """A step's exchange as it was recorded, not yet read from the device."""

    local_scale: float
    bytes: int
    ready: Moment
    end: Moment
    local_squares: Tensor
    mean_squares: Tensor


class _Watch:
    """Averages buckets, and keeps what it saw of them until the step's exchange is recorded.

    It is the hook's state, which torch holds where Python's garbage collector does not look: it must not
    know the wrapped module, or neither would ever be freed.

    Args:
        group: All ranks.
        device: Where the gradients are.
    """

    def __init__(self, group: ProcessGroup, device: torch.device) -> None:
        self._group, self._device = group, device
        self.buckets: list[Tensor] = []
        self.local_squares: list[Tensor] = []
        self.ready: Moment | None = None

    def begin(self) -> None:
        """Begins a step."""
        self.buckets, self.local_squares, self.ready = [], [], None

    def reduce(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """Averages one bucket over the ranks, as `DistributedDataParallel` does when left alone."""
        buffer = bucket.buffer()
        self.local_squares.append(_squared_norm(buffer))
        self.buckets.append(buffer)
        # Times the reciprocal, as the default does: dividing would differ in the last bit.
        buffer.mul_(1.0 / self._group.size())
        self.ready = moment(self._device)
        work = dist.all_reduce(buffer, group=self._group, async_op=True)
        assert work is not None
        future: torch.futures.Future[list[Tensor]] = work.get_future()
        return future.then(lambda reduced: reduced.value()[0])


class AllReduce(Strategy):
    """`DistributedDataParallel`, with a hook that averages as it does by default and looks on.

    Losses are weighted by `num_samples * num_ranks / batch_size`, so that the mean over ranks is the
    gradient of the mean over the global batch, even where shares differ. Bucket by bucket the hook
    takes the squared norm of the local gradient, then averages; after the backward pass the squared
    norm of the mean is taken from the same buckets. What the last bucket waits for, from the moment
    its gradient is ready to the end of the backward pass, is the synchronisation that compute did
    not hide.

    One rank is the plain model: no wrapper, no process group, nothing recorded.
    """

    traits = traits_of("all_reduce")

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._wrapped: DistributedDataParallel | None = None
        self._group: ProcessGroup | None = None
        self._device = torch.device("cpu")
        self._local_scale = 1.0
        self._steps_alone = 0
        self._pending: list[_Pending] = []
        self._watch: _Watch | None = None

    def attach(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        links: Links,
        rng: np.random.Generator,
    ) -> nn.Module:
        group = links.group
        self._model, self._group = model, group
        self._device = next(model.parameters()).device
        if group is None:
            return model
        self._wrapped = DistributedDataParallel(
            model,
            device_ids=None if self._device.type == "cpu" else [self._device],
            process_group=group,
            gradient_as_bucket_view=True,
            **_BUFFERS_APART,
        )
        self._watch = _Watch(group, self._device)
        # A lambda, since torch compares annotations to types, which ours are the names of.
        self._wrapped.register_comm_hook(self._watch, lambda watch, bucket: watch.reduce(bucket))
        return self._wrapped

    def loss_weight(self, num_samples: int, share: Share) -> float:
        return num_samples * share.num_ranks / share.batch_size

    def before_step(self, share: Share) -> None:
        # The accumulated gradient is g_r times this rank's weight: divided out, |g_r|^2 remains.
        self._local_scale = share.batch_size / (share.num_samples * share.num_ranks)
        if self._watch is not None:
            self._watch.begin()

    def accumulating(self) -> AbstractContextManager[None]:
        return nullcontext() if self._wrapped is None else self._wrapped.no_sync()

    def after_backward(self) -> None:
        watch = self._watch
        if watch is None:
            self._steps_alone += 1
            return
        end = moment(self._device)
        assert watch.ready is not None, "the backward pass reduced no bucket"
        self._pending.append(
            _Pending(
                local_scale=self._local_scale,
                bytes=sum(buffer.numel() * buffer.element_size() for buffer in watch.buckets),
                ready=watch.ready,
                end=end,
                local_squares=torch.stack(watch.local_squares).sum(),
                mean_squares=torch.stack([_squared_norm(buffer) for buffer in watch.buckets]).sum(),
            )
        )

    def after_step(self) -> None:
        """Nothing: gradients were exchanged before the step."""

    def attend(self) -> bool:
        """Nothing is ever under way between two steps."""
        return True

    def own_score_vector(self) -> None:
        """Nothing: see `scored_parameters`."""

    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        raise AssertionError("parameters are the same on all ranks: scored_parameters serves")

    def close(self) -> None:
        """Nothing runs beside the training."""

    def exchanges(self) -> list[Exchange]:
        found = [Exchange() for _ in range(self._steps_alone)]
        found += [
            Exchange(
                sync_seconds=max(0.0, seconds_between(pending.ready, pending.end)),
                exchanged_bytes=pending.bytes,
                local_squared_norm=float(pending.local_squares) * pending.local_scale**2,
                mean_squared_norm=(norm := float(pending.mean_squares)),
                # Equal on all ranks: one rank's non-finite gradient makes the mean non-finite everywhere.
                is_finite=math.isfinite(norm),
            )
            for pending in self._pending
        ]
        self._pending, self._steps_alone = [], 0
        return found

    @contextmanager
    def scored_parameters(self) -> Iterator[None]:
        """Parameters are equal on all ranks; buffers such as batch-norm statistics are averaged."""
        assert self._model is not None, "attach comes first"
        buffers = [buffer for buffer in self._model.buffers() if buffer.is_floating_point()]
        if self._group is None or not buffers:
            yield
            return
        with torch.no_grad():
            own = [buffer.clone() for buffer in buffers]
            # One collective for all of them: its latency is most of what it takes.
            flat = torch.cat([buffer.flatten() for buffer in buffers])
            dist.all_reduce(flat, group=self._group)
            flat.div_(self._group.size())
            for buffer, mean in zip(buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))
            try:
                yield
            finally:
                for buffer, kept in zip(buffers, own, strict=True):
                    buffer.copy_(kept)

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Nothing is kept between steps, so that a run may go on with another number of ranks."""


def _squared_norm(values: Tensor) -> Tensor:
    # Squared in double precision: a large but finite gradient is not taken for an infinite one.
    wide = torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else None
    norm: Tensor = torch.linalg.vector_norm(values.detach(), dtype=wide)
    return norm.double().square()
