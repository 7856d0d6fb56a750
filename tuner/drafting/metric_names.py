"""What a name or label of a number means: epoch, step, samples, or a score, its metric and direction."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Field = Literal["epoch", "step", "samples"]
Split = Literal["validation", "test", "unknown", "training"]
Direction = Literal["maximize", "minimize"]

#: How much the data counts beside the metric in the rank of a score.
_SPLIT_RANK = 10
SPLITS: tuple[Split, ...] = ("validation", "test", "unknown", "training")
_SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev", "heldout"), "validation"),
    **dict.fromkeys(("validating", "evaluating", "validate", "evaluate", "holdout"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("train", "training", "trn"), "training"),
}
_FIELDS: dict[str, Field] = {
    **dict.fromkeys(("epoch", "epochs", "ep"), "epoch"),
    **dict.fromkeys(("step", "steps", "iter", "iters", "iteration", "iterations", "it"), "step"),
    **dict.fromkeys(("batch", "batches", "update", "updates", "round", "itr", "boosting"), "step"),
    **dict.fromkeys(("samples", "examples", "images", "sample", "example", "seen"), "samples"),
}
#: Word of a metric to its name in the job file, its direction, and how telling it is (0 is best).
_QUANTITIES: dict[str, tuple[str, Direction, int]] = {
    **dict.fromkeys(("accuracy", "acc", "top1", "prec1", "acc1"), ("accuracy", "maximize", 0)),
    **{
        word: (word, "maximize", 1)
        for word in (
            *(
                "f1",
                "auc",
                "auroc",
                "ap",
                "map",
                "miou",
                "iou",
                "dice",
                "bleu",
                "rouge",
                "psnr",
                "ssim",
                "r2",
            ),
            *("reward", "return", "mcc", "ndcg", "hits", "score", "success", "em", "recall", "precision"),
        )
    },
    **dict.fromkeys(("bpc", "bpb"), ("bits_per_character", "minimize", 1)),
    **{
        word: (word, "minimize", 2)
        for word in (
            "perplexity",
            "ppl",
            "mse",
            "mae",
            "rmse",
            "wer",
            "cer",
            "fid",
            "mape",
            "logloss",
            "rmsle",
        )
    },
    **dict.fromkeys(("loss", "nll", "ce", "xent", "elbo", "objective"), ("loss", "minimize", 3)),
    **dict.fromkeys(("error", "err"), ("error_rate", "minimize", 2)),
}
_IGNORED = {
    "lr",
    "rate",
    "time",
    "eta",
    "best",
    "norm",
    "grad",
    "memory",
    "mem",
    "speed",
    "throughput",
    "top5",
}
_IGNORED |= {"acc5", "acc3", "top3", "prec5", "top10", "seed", "rank", "patience", "counter", "temperature"}
_IGNORED |= {"min", "max", "std", "seconds", "sec", "runtime", "second", "ms", "momentum", "decay", "scale"}
_IGNORED |= {
    "total",
    "count",
    "num",
    "number",
    "size",
    "params",
    "parameters",
    "workers",
    "threads",
    "baseline",
}


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a number means.

    Args:
        field: Which position it is; None for a score.
        metric: Its name in a job file; empty for a position.
        direction: Which values are better.
        split: The data that a score is of.
        rank: Which score tells most of a training: a smaller one is preferred.
        is_part: Whether other words qualify the metric, as in `kl_loss`.
    """

    field: Field | None = None
    metric: str = ""
    direction: Direction = "maximize"
    split: Split = "unknown"
    rank: int = 0
    is_part: bool = False

    def of(self, split: Split) -> Meaning:
        """The same score of other data, with the rank that goes with it."""
        moved = SPLITS.index(split) - SPLITS.index(self.split)
        return replace(self, split=split, rank=self.rank + _SPLIT_RANK * moved)


def words_of(label: str) -> list[str]:
    """The words of a label, in lower case: `val_acc@1` is `val`, `acc1`."""
    joined = re.sub(r"(?<=[A-Za-z])[@-](?=\d)", "", label)
    joined = re.sub(r"m(IoU|AP|Acc)(?![a-z])|IoU", lambda found: found[0].lower(), joined)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", joined).lower()
    return re.findall(r"[a-z]+\d*|\d+", spaced)


def split_of(label: str) -> Split | None:
    """The data that a label names; the last such word counts."""
    found = [_SPLIT_WORDS[word] for word in words_of(label) if word in _SPLIT_WORDS]
    return found[-1] if found else None


def meaning_of(label: str, context: Split | None = None) -> Meaning | None:
    """What a number with this label means; None if it is neither a position nor a score.

    Args:
        label: The words in front of the number, or the name of its column.
        context: The data that the words before it are about.
    """
    words = words_of(label)
    if not words:
        return None
    last = next((word for word in reversed(words) if word not in _SPLIT_WORDS and not word.isdecimal()), "")
    is_rate = "/" in label.rstrip("/") or {"best", "per", "time", "left"} & set(words)
    if last in _FIELDS and not is_rate:
        return Meaning(field=_FIELDS[last])
    found = [word for word in words if word in _QUANTITIES]
    if not found or (_IGNORED - {"total", "num", "rate"}) & set(words):
        return None
    if "learning" in words or "lr" in words:
        return None
    if words[-1] not in _QUANTITIES and words[-1] not in _SPLIT_WORDS and words[-1] not in _TAILS:
        return None
    metric, direction, weight = _QUANTITIES[found[-1]]
    split = split_of(label) or context or "unknown"
    plain = {*_SPLIT_WORDS, *_QUANTITIES, *_TAILS, "total", "overall"}
    return Meaning(
        metric=metric,
        direction=direction,
        split=split,
        rank=_SPLIT_RANK * SPLITS.index(split) + weight,
        is_part=any(word not in plain and not word.isdecimal() for word in words),
    )


_TAILS = {
    "rate",
    "score",
    "avg",
    "mean",
    "average",
    "macro",
    "micro",
    "weighted",
    "1",
    "epoch",
    "per",
    "step",
}
