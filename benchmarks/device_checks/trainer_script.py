"""The own script of the check: a tiny BERT tells which of two symbols is more frequent in a sequence."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
from paceline_client import checkpoint_path, hugging_face_callback
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

LENGTH, NUM_SYMBOLS = 16, 12


def sequences(num: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Sequences of symbols, labelled by whether small symbols outnumber large ones."""
    symbols = torch.randint(0, NUM_SYMBOLS, (num, LENGTH), generator=torch.Generator().manual_seed(seed))
    labels = ((symbols < NUM_SYMBOLS // 2).sum(dim=1) > LENGTH // 2).long()
    return [{"input_ids": one, "labels": label} for one, label in zip(symbols, labels, strict=True)]


def accuracy(evaluated: object) -> dict[str, float]:
    predictions, labels = evaluated.predictions, evaluated.label_ids  # type: ignore[attr-defined]
    return {"accuracy": float((predictions.argmax(1) == labels).mean())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--resume")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=NUM_SYMBOLS,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=LENGTH,
        )
    )
    arguments = TrainingArguments(
        output_dir=checkpoint_path() or "out",
        learning_rate=options.lr,
        lr_scheduler_type="constant",
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=256,
        num_train_epochs=50,
        eval_strategy="steps",
        eval_steps=max(1, 2048 // options.batch_size),
        save_strategy="no",
        report_to=[],
        use_cpu=options.device == "cpu",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=sequences(4096, seed=1),
        eval_dataset=sequences(512, seed=2),
        compute_metrics=accuracy,
        callbacks=[hugging_face_callback("eval_accuracy")],
    )
    folder = Path(os.environ.get("PACELINE_OUTPUT_FOLDER", "."))
    device = next(trainer.model.parameters()).device.type
    (folder / "trained_on.json").write_text(json.dumps({"device": device}))
    trainer.train(resume_from_checkpoint=get_last_checkpoint(options.resume) if options.resume else None)


if __name__ == "__main__":
    main()
