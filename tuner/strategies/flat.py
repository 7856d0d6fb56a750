"""The parameters of a replica as one contiguous vector, with and without Nesterov's look-ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tuner.domain.errors import JobError


class FlatParameters:
    """The trainable parameters of a model, as views of one contiguous vector.

    A strategy sends and receives this vector as one message, and a change of `vector` changes the model.

    torch's Nesterov momentum stores the look-ahead point theta - lr mu buf in the model, where theta is the
    parameters, lr the learning rate, mu the momentum and buf the momentum buffer. Ranks exchange and evaluate
    theta itself (`plain`). To change theta by an amount, add the amount to `vector`, since the look-ahead
    point then changes by the same amount. Momentum is not exchanged.

    Args:
        model: The model, on its device; its parameters become views of the vector.
        optimizer: The optimizer of the model's parameters.

    Raises:
        JobError: The parameters differ in type or device, or there are none.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._last_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        kinds = {(p.dtype, p.device) for p in self._parameters}
        if len(kinds) != 1 or not next(iter(kinds))[0].is_floating_point:
            found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds)) or "none"
            raise JobError(
                f"the model's trainable parameters are of {found}; strategies that exchange parameters need "
                "one floating type on one device: convert the model, or use all_reduce"
            )
        self.vector = torch.cat([p.detach().flatten() for p in _memory_order(self._parameters)])
        self._views: list[Tensor] = []
        start = 0
        for parameter in self._parameters:
            part = self.vector[start : start + parameter.numel()]
            view = torch.as_strided(part, parameter.shape, parameter.stride(), part.storage_offset())
            parameter.data = view
            self._views.append(view)
            start += parameter.numel()

    @property
    def num_bytes(self) -> int:
        """Size of all trainable parameters together, in bytes."""
        return self.vector.numel() * self.vector.element_size()

    def stepped(self) -> None:
        """Stores the learning rates of the step just made, on which Nesterov's look-ahead depends."""
        self._last_rates = [float(group["lr"]) for group in self._optimizer.param_groups]

    def plain(self, out: Tensor | None = None) -> Tensor:
        """Returns theta, the parameters without look-ahead, `(num_parameters,)`.

        If the optimizer does not look ahead, this is `vector` itself.

        Args:
            out: Buffer for the result, of the vector's shape; None allocates one.
        """
        ahead = [
            (rate * group["momentum"], parameter)
            for rate, group in zip(self._last_rates, self._optimizer.param_groups, strict=True)
            if group.get("nesterov") and group.get("momentum")
            for parameter in group["params"]
        ]
        moved = [(scale, p) for scale, p in ahead if "momentum_buffer" in self._optimizer.state.get(p, {})]
        if not moved:
            return self.vector
        out = torch.empty_like(self.vector) if out is None else out
        out.copy_(self.vector)
        place = {id(p): i for i, p in enumerate(self._parameters)}
        for scale, parameter in moved:
            buffer = self._optimizer.state[parameter]["momentum_buffer"]
            if buffer is not None and id(parameter) in place:
                view = self._views[place[id(parameter)]]
                target = torch.as_strided(out, view.shape, view.stride(), view.storage_offset())
                target.add_(buffer, alpha=scale)
        return out

    def replace(self, plain: Tensor, target: Tensor) -> None:
        """Replaces the parameters by other ones; Nesterov momentum stays as far ahead of them as before.

        Args:
            plain: The present parameters without look-ahead, as the method `plain` returned them; used as
                working memory, so its content is lost.
            target: The new parameters without look-ahead, `(num_parameters,)`.
        """
        if plain is self.vector:
            self.vector.copy_(target)
        else:
            self.vector.add_(torch.sub(target, plain, out=plain))

    @contextmanager
    def holding(self, vector: Tensor) -> Iterator[None]:
        """Context manager in which the model uses the parameters in `vector` instead of its own."""
        with torch.no_grad():
            saved = self.vector.clone()
            self.vector.copy_(vector)
        try:
            yield
        finally:
            with torch.no_grad():
                self.vector.copy_(saved)


def trainable_bytes(model: nn.Module) -> int:
    """Returns the size of a model's trainable parameters, in bytes."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def _memory_order(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Returns each parameter with its dimensions permuted to the order in which they are in memory.

    The result can be flattened without changing the parameter's memory layout (such as channels last). A
    parameter with gaps in memory is made contiguous first.
    """
    ordered = []
    for parameter in parameters:
        values = parameter.detach()
        dims = sorted(range(values.dim()), key=lambda d: (values.stride(d), values.size(d)), reverse=True)
        dense = values.permute(dims) if values.dim() else values
        if not dense.is_contiguous():
            parameter.data = values.contiguous()
            dense = parameter.detach()
        ordered.append(dense)
    return ordered
