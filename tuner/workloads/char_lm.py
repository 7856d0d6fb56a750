"""A character-level language model on real text; by default the interpreter's own standard library."""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tuner.domain.errors import DataNotFoundError
from tuner.domain.workload import METRICS, AdamWSettings, ConstantSchedule, Workload
from tuner.workloads.small_gpt import SmallGPT

_NUM_BYTES = 256
_VALIDATION_SHARE = 0.05
#: Windows scored at once.
_SCORING_BATCH_SIZE = 32
_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})


class CharLM(Workload):
    """Predicts the next byte of a text; a sample is a window of `context` bytes.

    The last twentieth of the text is kept for scoring. The metric counts characters of UTF-8, so that
    text beyond ASCII compares. The standard library differs between versions of Python, and so do its
    curves: name a text where runs on several machines must agree. Trains with AdamW unless told otherwise.

    Args:
        width: Features of a position.
        depth: Transformer blocks.
        heads: Attention heads; divides `width`.
        context: Bytes of a window.
        text: A text file, absolute or relative to where Paceline runs; the sources of the
            interpreter's standard library if absent.
        validation_samples: How many windows are scored, spread evenly over the text kept for it.
    """

    metric = METRICS["bits_per_character"]
    optimizer_settings = AdamWSettings()
    schedule_settings = ConstantSchedule(warmup_samples=500)

    def __init__(
        self,
        *,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        context: int = 64,
        text: str | None = None,
        validation_samples: int = 256,
    ) -> None:
        sizes = {"width": width, "depth": depth, "heads": heads, "context": context}
        for name, value in {**sizes, "validation_samples": validation_samples}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if width % heads != 0:
            raise ValueError(f"heads must divide width, got width={width} heads={heads}")
        self.width = width
        self.depth = depth
        self.heads = heads
        self.context = context
        self.validation_samples = validation_samples
        self.text = None if text is None else Path(text).expanduser()

    def model(self) -> nn.Module:
        return SmallGPT(
            num_symbols=_NUM_BYTES,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            context=self.context,
        )

    def training_data(self) -> Dataset[Any]:
        text = self._text()
        return TextWindows(text[: _num_training(len(text))], self.context)

    def validation_data(self) -> Dataset[Any]:
        text = self._text()
        windows = TextWindows(text[_num_training(len(text)) :], self.context)
        return windows.spread(min(self.validation_samples, len(windows)))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return _nats(model, batch, reduction="mean")

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        windows = cast(TextWindows, data)
        device = next(model.parameters()).device
        nats, num_characters = 0.0, 0
        for start in range(0, len(windows), _SCORING_BATCH_SIZE):
            indices = range(start, min(start + _SCORING_BATCH_SIZE, len(windows)))
            batch = windows.__getitems__(indices)
            num_characters += _num_characters(batch[:, 1:])
            nats += float(_nats(model, batch.to(device), reduction="sum"))
        return nats / math.log(2) / max(1, num_characters)

    def _text(self) -> Tensor:
        text = _standard_library() if self.text is None else _read(self.text)
        kept = len(text) - _num_training(len(text))
        if kept < self.context + 1:
            raise DataNotFoundError(
                f"{self.text} is too short: its last twentieth, {kept} bytes, is scored and must hold "
                f"context + 1 = {self.context + 1}. Name a longer text or lower context"
            )
        return text


class TextWindows(Dataset[Tensor]):
    """Windows of a text, end to end, each with the byte that follows it.

    Args:
        text: Bytes, uint8, `(num_bytes,)`.
        context: Bytes of a window.
        starts: Where windows begin; end to end from the first byte if absent.
    """

    def __init__(self, text: Tensor, context: int, starts: Tensor | None = None) -> None:
        self.text = text
        self.context = context
        self.starts = torch.arange(0, len(text) - context, context) if starts is None else starts
        self._offsets = torch.arange(context + 1)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Tensor:
        return self.text[self.starts[index] + self._offsets]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        """A collated batch of windows, uint8, `(num_windows, context + 1)`."""
        starts = self.starts[torch.as_tensor(indices, dtype=torch.long)]
        return self.text[starts[:, None] + self._offsets]

    def spread(self, num_windows: int) -> TextWindows:
        """This many of the windows, at even distances."""
        chosen = torch.arange(num_windows) * len(self) // num_windows
        return TextWindows(self.text, self.context, self.starts[chosen])


def _nats(model: nn.Module, windows: Tensor, *, reduction: str) -> Tensor:
    symbols = windows.long()
    scores = model(symbols[:, :-1])
    return nn.functional.cross_entropy(scores.flatten(0, 1), symbols[:, 1:].flatten(), reduction=reduction)


def _num_characters(symbols: Tensor) -> int:
    # In UTF-8 every byte but those of the form 10xxxxxx begins a character.
    return int(((symbols & 0xC0) != 0x80).sum())


def _num_training(num_bytes: int) -> int:
    return num_bytes - round(num_bytes * _VALIDATION_SHARE)


def _as_tensor(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())


@lru_cache(maxsize=1)
def _read(path: Path) -> Tensor:
    try:
        return _as_tensor(path.read_bytes())
    except OSError as error:
        raise DataNotFoundError(
            f"the text {path.absolute()} cannot be read: {error.strerror}. Set text in "
            "[workload.parameters] to a text file, or leave it out for Python's standard library"
        ) from error


@lru_cache(maxsize=1)
def _standard_library() -> Tensor:
    folder = Path(sysconfig.get_paths()["stdlib"])
    sources = [
        path.read_bytes()
        for path in sorted(folder.rglob("*.py"))
        if not _SKIPPED_FOLDERS.intersection(path.relative_to(folder).parts)
    ]
    if not sources:
        raise DataNotFoundError(
            f"no sources of Python's standard library are in {folder}. "
            "Set text in [workload.parameters] to a text file"
        )
    return _as_tensor(b"\n".join(sources))
