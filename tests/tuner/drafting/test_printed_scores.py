"""Lines that hold scores are found in the output of scripts of many kinds, and their patterns read them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tuner.drafting.printed_scores import epoch_samples_in, read_output

Lines = list[str]


def mnist() -> Lines:
    lines = []
    for epoch in range(1, 4):
        lines += [
            f"Train Epoch: {epoch} [{i * 640}/60000 ({i}%)]\tLoss: {2 / (epoch + i):.6f}" for i in range(94)
        ]
        lines += ["", f"Test set: Average loss: 0.1, Accuracy: {9000 + epoch}/10000 ({90 + epoch}%)", ""]
    return lines


def imagenet() -> Lines:
    lines = []
    for epoch in range(3):
        lines += [
            f"Epoch: [{epoch}][{i:3d}/100]\tTime  0.1 ( 0.1)\tLoss 4.{i}e-01 (5.0e-1)\tAcc@1  12.{i} ( 11.2)"
            for i in range(1, 100, 10)
        ]
        lines += [f"Test: [ {i}/10]\tTime 0.1 (0.1)\tAcc@1  1{i}.0 (12.0)" for i in range(0, 10, 5)]
        lines.append(f" *   Acc@1 {40 + epoch}.2 Acc@5 {60 + epoch}.1")
    return lines


def hugging_face() -> Lines:
    return ["{'loss': 0.7, 'grad_norm': 1.2, 'learning_rate': 5e-05, 'epoch': 1.0}"] + [
        f"{{'eval_loss': {1 / e:.4f}, 'eval_accuracy': 0.{e}, 'eval_runtime': 12.5, 'epoch': {e}.0}}"
        for e in range(1, 4)
    ]


def keras() -> Lines:
    lines = []
    for epoch in range(1, 4):
        lines += [
            f"Epoch {epoch}/10",
            "\x1b[1m  1/469\x1b[0m \x1b[37m━━━━\x1b[0m \x1b[1m5s\x1b[0m 12ms/step - accuracy: 0.1 - loss: 2",
            f"\x1b[1m469/469\x1b[0m \x1b[32m━━━━━━\x1b[0m \x1b[1m{epoch}s\x1b[0m 3ms/step - accuracy: 0.81 - "
            f"loss: 0.5 - val_accuracy: 0.9{epoch} - val_loss: 0.2{epoch}",
        ]
    return lines


def boosting() -> Lines:
    return [f"[{i}]\tvalid_0's binary_logloss: {1 / i:.4f}\tvalid_0's auc: 0.{i}" for i in range(1, 9)]


def torchtitan() -> Lines:
    lines = []
    for step in range(10, 200, 10):
        lines.append(f"step: {step}  loss: {8 - step / 100:.4f}  memory:  1.2GiB(3%)  tps: 1,234")
        if step % 50 == 0:
            lines.append(f"validate step: {step}  loss: {8.1 - step / 100:.4f}")
    return lines


def nano_gpt() -> Lines:
    lines = []
    for step in range(0, 500, 100):
        lines.append(f"step {step}: train loss {4 - step / 500:.4f}, val loss {4.1 - step / 500:.4f}")
        lines += [f"iter {step + i}: loss 3.2, time 12.3ms, mfu 1.2%" for i in range(0, 100, 10)]
    return lines


def log_with_dates() -> Lines:
    return [
        f"2024-01-02 10:00:0{e},123 - INFO - [Epoch {e}] val_loss=0.{9 - e}1 val_mIoU=0.{e}5 time=12.3s"
        for e in range(1, 5)
    ]


def blocks() -> Lines:
    lines = []
    for epoch in range(1, 6):
        lines += [
            f"Epoch: {epoch:02} | Epoch Time: 0m 12s",
            f"\tTrain Loss: 0.6{epoch} | Train Acc: 6{epoch}.07%",
            f"\t Val. Loss: 0.5{epoch} |  Val. Acc: 7{epoch}.47%",
        ]
    return lines


def language_model() -> Lines:
    lines = []
    for epoch in range(1, 4):
        lines += [
            f"| epoch {epoch:3d} | {i:5d}/ 2983 batches | lr 20.00 | ms/batch 12.3 | loss  5.01 | ppl   90.00"
            for i in range(200, 2983, 200)
        ]
        lines.append(
            f"| end of epoch {epoch:3d} | time: 44.3s | valid loss {6 / epoch:5.2f} | valid ppl  180.00"
        )
    return lines


def ranks_with_iterations() -> Lines:
    lines = []
    for epoch in range(1, 4):
        lines += [f"[RANK0] Epoch {epoch} | Iter {i} | Train Loss 3.{i}" for i in range(0, 501, 100)]
        lines += [f"[RANK0] Epoch {epoch} | Iter {i} | Eval Loss 2.{9 - epoch}" for i in (0, 100)]
    return lines


def words_in_parentheses() -> Lines:
    lines = []
    for epoch in range(1, 5):
        lines += [
            f"07/29 - INFO - Epoch(train) [{epoch}][ {i}/60]  loss: 0.0{epoch}" for i in range(5, 61, 5)
        ]
        lines.append(f"07/29 - INFO - Epoch(val) [{epoch}][8/8]    accuracy/top1: 3{epoch}.5  time: 0.0004")
    return lines


def table() -> Lines:
    return [
        "  epoch    train_loss    valid_acc    valid_loss     dur",
        "-------  ------------  -----------  ------------  ------",
        *(f"{e:7d}  {2 / e:12.4f}  {e / 10:11.4f}  {3 / (2 + e):12.4f}  0.01{e}" for e in range(1, 9)),
    ]


def table_with_times() -> Lines:
    rows = [f"{e}         0.5{e}     0.4{e}     0.8{e}      00:0{e}     " for e in range(5)]
    return ["epoch     train_loss  valid_loss  accuracy  time    ", *rows]


def top_one_and_five() -> Lines:
    return [f"epoch {e} Top-5 accuracy: 0.9{e} Top-1 accuracy: 0.6{e}" for e in range(1, 6)]


def parts_of_a_loss() -> Lines:
    return [f"epoch {e} kl_loss 0.{e} recon_loss 0.1{e} loss 0.{9 - e}" for e in range(1, 6)]


def fraction_and_percentage() -> Lines:
    return [f"iter {e} test score: {e}/500 = {e / 5:.2f}% correct" for e in range(1, 6)]


def bars() -> Lines:
    lines = []
    for step in range(25, 200, 25):
        lines += [
            f"training:  {step}%|###       | {step}/1600 [00:07<02:11, 51.3it/s]",
            f"INFO:train:step={step} loss=1.2 acc=0.{step:03d}",
        ]
    return lines


def lightning_bar() -> Lines:
    bar = "100%|██████████| 63/63 [00:00<00:00, 126.77it/s, v_num=0"
    return [f"Epoch {e}: {bar}, train_loss=0.{9 - e}2, val_acc=0.9{e}]" for e in range(4)]


def one_split_context() -> Lines:
    return [
        f"Epoch {e}/20 | train loss 0.{9 - e} acc 0.{e} | val loss 0.8{9 - e} acc 0.{e}5" for e in range(1, 6)
    ]


#: Output, name of the metric, direction, first and last value that the pattern reads, positions.
STYLES: list[tuple[Callable[[], Lines], str, str, str, str, set[str]]] = [
    (mnist, "accuracy", "maximize", "91%", "93%", {"epoch", "samples"}),
    (imagenet, "accuracy", "maximize", "40.2", "42.2", {"epoch", "step"}),
    (hugging_face, "accuracy", "maximize", "0.1", "0.3", {"epoch"}),
    (keras, "accuracy", "maximize", "0.91", "0.93", {"epoch"}),
    (boosting, "auc", "maximize", "0.1", "0.8", {"step"}),
    (torchtitan, "loss", "minimize", "7.6000", "6.6000", {"step"}),
    (nano_gpt, "loss", "minimize", "4.1000", "3.3000", {"step"}),
    (log_with_dates, "miou", "maximize", "0.15", "0.45", {"epoch"}),
    (blocks, "accuracy", "maximize", "71.47%", "75.47%", {"epoch"}),
    (language_model, "loss", "minimize", "6.00", "2.00", {"epoch", "step"}),
    (ranks_with_iterations, "loss", "minimize", "2.8", "2.6", {"epoch", "step"}),
    (words_in_parentheses, "accuracy", "maximize", "31.5", "34.5", {"epoch", "step"}),
    (table, "accuracy", "maximize", "0.1000", "0.8000", {"epoch"}),
    (table_with_times, "accuracy", "maximize", "0.80", "0.84", {"epoch"}),
    (top_one_and_five, "accuracy", "maximize", "0.61", "0.65", {"epoch"}),
    (parts_of_a_loss, "loss", "minimize", "0.8", "0.4", {"epoch"}),
    (fraction_and_percentage, "score", "maximize", "0.20%", "1.00%", {"step"}),
    (bars, "accuracy", "maximize", "0.025", "0.175", {"step"}),
    (lightning_bar, "accuracy", "maximize", "0.90", "0.93", {"epoch"}),
    (one_split_context, "accuracy", "maximize", "0.15", "0.55", {"epoch"}),
]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style[0].__name__)
def test_scores_are_read_where_they_stand(
    style: tuple[Callable[[], Lines], str, str, str, str, set[str]],
) -> None:
    output, metric, direction, first, last, fields = style
    lines = output()
    [reading] = read_output(lines, batch_size=64)
    assert (reading.meaning.metric, reading.meaning.direction) == (metric, direction)
    assert reading.fields == fields
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    found = [
        groups
        for line in plain
        for pattern in reading.patterns
        if (match := re.search(pattern, line)) and (groups := match.groupdict())
    ]
    values = [groups["value"] for groups in found if "value" in groups]
    assert (values[0], values[-1]) == (first, last)
    assert len(values) == len(reading.values)
    # Positions come in order, and each score has one: its own, or that of the line before.
    epochs = [float(groups["epoch"]) for groups in found if "epoch" in groups]
    assert epochs == sorted(epochs)
    assert set(found[0]) - {"value"}


def test_a_sample_counter_gives_the_size_of_an_epoch() -> None:
    [reading] = read_output(mnist(), batch_size=64)
    assert reading.epoch_samples is not None
    assert (reading.epoch_samples.samples, reading.epoch_samples.is_exact) == (60_000, True)


def test_batches_of_an_epoch_give_its_size_about() -> None:
    [reading] = read_output(imagenet(), batch_size=64)
    assert reading.epoch_samples is not None
    assert (reading.epoch_samples.samples, reading.epoch_samples.is_exact) == (6_400, False)


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        (["Number of training examples: 12,345", "Number of test examples: 99"], 12_345),
        (["  Num examples = 1,234"], 1_234),
        (["loaded 50000 training images and 10000 validation images"], 50_000),
        (["train samples: 2000, validation samples: 500"], 2_000),
        (["Train set size: 300"], 300),
        (["validation: 500 examples", "throughput 1000 samples/s"], None),
        (["num params = 100000"], None),
    ],
)
def test_the_size_of_the_training_set_is_found(lines: Lines, size: int | None) -> None:
    found = epoch_samples_in(lines)
    assert (None if found is None else found.samples) == size


@pytest.mark.parametrize(
    "lines",
    [
        ["epoch 1 loss: nan", "epoch 2 loss: nan"],
        [],
        ["started", "loading data from /data/2024-01-01"],
        ["lr 0.1", "epoch 1", "best accuracy 0.9"],
    ],
)
def test_output_without_a_score_gives_none(lines: Lines) -> None:
    assert read_output(lines, batch_size=32) == []


def test_hostile_output_takes_no_time() -> None:
    lines = [
        "x" * 100_000,
        "_a" * 50_000,
        "1" * 100_000,
        "loss: " * 10_000,
        "9" * 400,
        "loss 1e999 epoch 1e999",
    ] * 20
    lines += [f"epoch {i} loss {i}" + " 1" * 5_000 for i in range(20)]
    read_output(lines, batch_size=32)
