"""Callbacks for frameworks, tried with the frameworks themselves where they are installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

HUGGING_FACE = """
import sys
import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from paceline_client import checkpoint_path, hugging_face_callback

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x, labels):
        scores = self.layer(x)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}

torch.manual_seed(0)
points = torch.randn(64, 4)
data = [{"x": x, "labels": int(x.sum() > 0)} for x in points]
arguments = TrainingArguments(
    output_dir=checkpoint_path(), per_device_train_batch_size=8, num_train_epochs=5, eval_strategy="steps",
    eval_steps=4, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
)
def accuracy(told):
    return {"accuracy": float((told.predictions.argmax(1) == told.label_ids).mean())}
trainer = Trainer(
    model=Line(), args=arguments, train_dataset=data, eval_dataset=data, compute_metrics=accuracy,
    callbacks=[hugging_face_callback("eval_accuracy")],
)
trainer.train(resume_from_checkpoint=sys.argv[1] if len(sys.argv) > 1 else None)
"""

LIGHTNING = """
import sys
import torch
from torch import nn
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from paceline_client import lightning_callback

class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_accuracy", (self.layer(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

torch.manual_seed(0)
points = torch.randn(64, 4)
data = TensorDataset(points, (points.sum(1) > 0).long())
trainer = Trainer(
    accelerator="cpu", max_epochs=5, callbacks=[lightning_callback()], logger=False, val_check_interval=4,
    num_sanity_val_steps=1, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(
    Line(), DataLoader(data, batch_size=8), DataLoader(data, batch_size=64),
    ckpt_path=sys.argv[1] if len(sys.argv) > 1 else None,
)
"""


def run(folder: Path, script: str, *arguments: str, until: int) -> list[dict[str, Any]]:
    """What a script reported until so many samples."""
    shutil.copyfile(Path(__file__).resolve().parents[1] / "paceline_client.py", folder / "paceline_client.py")
    (folder / "script.py").write_text(script)
    metrics = folder / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PACELINE_METRICS": str(metrics),
            "PACELINE_STOP_FILE": str(folder / "stop"),
            "PACELINE_CHECKPOINT": str(folder / "checkpoint"),
            "PACELINE_BATCH_SIZE": "8",
            "PACELINE_UNTIL_SAMPLES": str(until),
        },
        check=True,
        timeout=250,
    )
    return [json.loads(line) for line in metrics.read_text().splitlines()]


@pytest.mark.parametrize(
    ("package", "script", "saved"),
    [("transformers", HUGGING_FACE, "checkpoint/checkpoint-8"), ("lightning", LIGHTNING, "checkpoint")],
)
def test_a_callback_reports_stops_saves_and_goes_on(
    tmp_path: Path, package: str, script: str, saved: str
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    lines = run(tmp_path, script, until=64)
    steps = [line["step"] for line in lines if "step" in line and "value" not in line]
    assert steps == list(range(9))
    scored = [line for line in lines if "value" in line]
    assert scored[0]["samples"] == 32
    assert all(0 <= line["value"] <= 1 for line in scored)
    assert (tmp_path / saved).exists()
    after = run(tmp_path, script, saved, until=128)
    assert after[0] | {"time": 0, "process": ""} == {
        "event": "begin",
        "step": 8,
        "samples": 64,
        "time": 0,
        "process": "",
    }
    assert max(line.get("step", 0) for line in after) == 16
