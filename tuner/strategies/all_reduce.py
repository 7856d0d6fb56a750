"""Synchronous all-reduce: the ranks average their gradients before every optimizer step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tuner.strategies.flat import trainable_bytes
from tuner.strategies.moments import Moment, moment, seconds_between
from tuner.strategies.strategy import Exchange, Links, Share, Strategy

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# torch renamed the argument `broadcast_buffers` and warns of the old name.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_NO_BUFFER_SYNC: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}


#: Gradient noise is measured once in this many steps.
_MEASURED_EVERY = 8


@dataclass(kw_only=True, slots=True)
class _Pending:
    """Measurements of one step's gradient exchange, which stay on the device until `_read` reads them."""

    local_scale: float
    bytes: int
    ready: Moment | None
    end: Moment
    local_squares: Tensor | None = None
    mean_squares: Tensor | None = None


class _Watch:
    """Records when the last gradient of a backward pass was ready.

    This object must not reference the wrapped module. Python's garbage collector does not see the reference
    from a parameter's hook to this object, so the module would never be freed.

    Args:
        device: The device of the gradients.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.ready: Moment | None = None

    def note(self, _parameter: Tensor) -> None:
        """Stores the present time as that at which the last gradient was ready; called by a hook."""
        self.ready = moment(self._device)


class AllReduce(Strategy):
    """Averages gradients by `DistributedDataParallel`, and measures gradient noise every few steps.

    The loss of each micro-batch is multiplied by `num_samples * num_ranks / batch_size`. The mean of the
    ranks' gradients is then the gradient of the mean loss over the global batch, even if the ranks process
    different numbers of samples.

    - In a step that measures gradient noise, the backward pass does not exchange gradients. Instead, the
      strategy computes the squared norm of the local gradients, averages the gradients in one collective per
      data type, and computes the squared norm of their mean. The averaged gradients are the same as in other
      steps up to rounding.
    - All other steps are plain `DistributedDataParallel`. A communication hook could measure in every step,
      but it calls from C++ into Python, which took up to a millisecond per step. The waiting time that does
      not overlap with compute is measured as the time from the last gradient to the end of the backward pass.

    A single rank trains the plain model, without a wrapper and without a process group.
    """

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._wrapped: DistributedDataParallel | None = None
        self._group: ProcessGroup | None = None
        self._device = torch.device("cpu")
        self._local_scale = 1.0
        self._num_bytes = 0
        self._steps = 0
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
            **_NO_BUFFER_SYNC,
        )
        self._num_bytes = trainable_bytes(model)
        self._watch = _Watch(self._device)
        first = next(p for p in model.parameters() if p.requires_grad)
        first.register_post_accumulate_grad_hook(self._watch.note)  # type: ignore[no-untyped-call]
        return self._wrapped

    def loss_weight(self, num_samples: int, share: Share) -> float:
        return num_samples * share.num_ranks / share.batch_size

    def before_step(self, share: Share) -> None:
        # The accumulated gradient is g_r times this rank's loss weight; this factor removes the weight.
        self._local_scale = share.batch_size / (share.num_samples * share.num_ranks)
        if self._wrapped is not None and self._watch is not None:
            self._watch.ready = None
            # Same effect as `no_sync`, for all micro-batches of the step.
            self._wrapped.require_backward_grad_sync = self._steps % _MEASURED_EVERY != 0

    def accumulating(self) -> AbstractContextManager[None]:
        return nullcontext() if self._wrapped is None else self._wrapped.no_sync()

    def after_backward(self) -> None:
        watch = self._watch
        if watch is None or self._wrapped is None:
            self._steps_alone += 1
            return
        pending = _Pending(
            local_scale=self._local_scale,
            bytes=self._num_bytes,
            ready=watch.ready,
            end=moment(self._device),
        )
        if not self._wrapped.require_backward_grad_sync:
            pending.ready = pending.end
            pending.local_squares, pending.mean_squares = self._average_by_hand()
            pending.end = moment(self._device)
        self._steps += 1
        self._pending.append(pending)

    def _average_by_hand(self) -> tuple[Tensor, Tensor]:
        """Averages gradients over the ranks; returns the squared norm before and after averaging."""
        assert self._model is not None
        assert self._group is not None
        local = torch.zeros((), dtype=torch.float64, device=self._device)
        mean = torch.zeros_like(local)
        with torch.no_grad():
            for gradients in _by_type(self._model):
                flat = torch.cat([gradient.flatten() for gradient in gradients])
                local += _squared_norm(flat)
                # `DistributedDataParallel` also multiplies; division would give a result that differs in the
                # last bit.
                flat.mul_(1.0 / self._group.size())
                dist.all_reduce(flat, group=self._group)
                mean += _squared_norm(flat)
                parts = torch.split(flat, [gradient.numel() for gradient in gradients])
                for gradient, part in zip(gradients, parts, strict=True):
                    gradient.copy_(part.view_as(gradient))
        return local, mean

    def after_step(self) -> None:
        """Does nothing: gradients are exchanged before the step."""

    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        raise AssertionError(
            "with all-reduce, all ranks have the same parameters: evaluate within scored_parameters instead"
        )

    def exchanges(self) -> list[Exchange]:
        found = [Exchange() for _ in range(self._steps_alone)]
        found += [_read(pending) for pending in self._pending]
        self._pending, self._steps_alone = [], 0
        return found

    @contextmanager
    def scored_parameters(self) -> Iterator[None]:
        """Context manager in which buffers (batch-norm statistics) are averaged over the ranks.

        The parameters are the same on all ranks and stay as they are.
        """
        assert self._model is not None, "attach comes first"
        buffers = [buffer for buffer in self._model.buffers() if buffer.is_floating_point()]
        if self._group is None or not buffers:
            yield
            return
        with torch.no_grad():
            own = [buffer.clone() for buffer in buffers]
            # One collective for all buffers, since latency dominates.
            flat = torch.cat([buffer.flatten() for buffer in buffers])
            dist.all_reduce(flat, group=self._group)
            flat.div_(self._group.size())
            for buffer, mean in zip(buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))
            try:
                yield
            finally:
                for buffer, saved in zip(buffers, own, strict=True):
                    buffer.copy_(saved)

    def state(self) -> dict[str, Any]:
        return {}

    def load(
        self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]] = (), is_twin: bool = False
    ) -> None:
        """Does nothing: there is no state, so a run may resume on any number of ranks."""


def _by_type(model: nn.Module) -> list[list[Tensor]]:
    """Returns the gradients of all trainable parameters, grouped by data type.

    A parameter that this rank's loss did not use gets a zero gradient, since other ranks may have used it.
    """
    found: dict[torch.dtype, list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            found.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    return list(found.values())


def _read(pending: _Pending) -> Exchange:
    sync_seconds = 0.0 if pending.ready is None else max(0.0, seconds_between(pending.ready, pending.end))
    if pending.local_squares is None or pending.mean_squares is None:
        return Exchange(sync_seconds=sync_seconds, exchanged_bytes=pending.bytes)
    mean = float(pending.mean_squares)
    return Exchange(
        sync_seconds=sync_seconds,
        exchanged_bytes=pending.bytes,
        local_squared_norm=float(pending.local_squares) * pending.local_scale**2,
        mean_squared_norm=mean,
        # The result is the same on all ranks: a non-finite gradient of one rank makes the mean non-finite.
        is_finite=math.isfinite(mean),
    )


def _squared_norm(values: Tensor) -> Tensor:
    # The norm is squared in double precision, so that large finite gradients do not overflow.
    wide = torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else None
    norm: Tensor = torch.linalg.vector_norm(values.detach(), dtype=wide)
    return norm.double().square()
