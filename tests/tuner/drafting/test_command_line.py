"""Commands are split into launcher, script and arguments, and only their values become variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.domain.errors import JobError
from tuner.drafting.command_line import split_command
from tuner.service.drafting import draft_of

SCRIPT = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", "-b", type=int, default=64, help="per GPU batch size")
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--data")
parser.parse_args()
"""


def template(folder: Path, command: str) -> str:
    (folder / "train.py").write_text(SCRIPT)
    return draft_of(split_command(command), folder, str).command_template()


@pytest.mark.parametrize(
    ("command", "kind", "ranks"),
    [
        ("python train.py", "plain", 1),
        ("python -u -m pkg.train --lr 1", "plain", 1),
        ("LR=0.1 env/bin/python train.py", "plain", 1),
        ("torchrun --standalone --nproc_per_node=4 train.py", "torchrun", 4),
        ("torchrun --nproc-per-node 2 --nnodes 1 train.py", "torchrun", 2),
        ("torchrun train.py", "torchrun", 1),
        ("python -m torch.distributed.run --nproc_per_node 3 train.py", "torchrun", 3),
        ("accelerate launch --num_processes 2 train.py", "other launcher", 2),
        ("accelerate launch train.py", "other launcher", None),
        ("torchrun --nproc_per_node gpu train.py", "torchrun", None),
    ],
)
def test_the_launcher_says_how_many_processes_start(command: str, kind: str, ranks: int | None) -> None:
    line = split_command(command)
    assert (line.kind, line.num_ranks) == (kind, ranks)
    assert line.script in ("train.py", "pkg.train")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "  ",
        "LR=0.1",
        "cd x && python train.py",
        "python train.py | tee log",
        "python train.py > log",
        "a 'b",
    ],
)
def test_what_is_no_single_command_is_refused(command: str) -> None:
    with pytest.raises(JobError, match="--script"):
        split_command(command)


def test_values_in_the_command_are_replaced_where_they_stand(tmp_path: Path) -> None:
    found = template(tmp_path, "python train.py -b 32 --data 'my data' --lr=0.5")
    assert found == "python train.py -b {batch_size} --data 'my data' --lr={learning_rate}"


def test_what_the_command_leaves_out_is_appended(tmp_path: Path) -> None:
    found = template(tmp_path, "python train.py --data {x}")
    assert found == "python train.py --data {{x}} --batch-size {batch_size} --lr {learning_rate}"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "train.py --lr 0.1 --lr 0.2 --data d",
            "train.py --lr {learning_rate} --data d --batch-size {batch_size}",
        ),
        ("train.py -b64 --data d", "train.py -b {batch_size} --data d --lr {learning_rate}"),
        ("train.py --data -- x", "train.py --data --batch-size {batch_size} --lr {learning_rate} -- x"),
        (
            "train.py --data $HOME/d --lr 0.1",
            "train.py --data $HOME/d --lr {learning_rate} --batch-size {batch_size}",
        ),
        ("train.py --data '$HOME' -b 8", "train.py --data '$HOME' -b {batch_size} --lr {learning_rate}"),
    ],
)
def test_words_of_all_kinds_stay_what_they_are(tmp_path: Path, command: str, expected: str) -> None:
    assert template(tmp_path, f"python {command}") == f"python {expected}"


def test_the_last_of_several_values_is_the_present_one(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    draft = draft_of(split_command("python train.py --lr 0.1 --lr 0.2 -b32"), tmp_path, str)
    assert (draft.learning_rate, draft.batch_size) == (0.2, 32)


def test_a_file_to_start_from_is_not_taken_for_a_place_to_save_to(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT + "parser.add_argument('--ckpt', default='w.pt')\n")
    line = split_command("python train.py --ckpt w.pt")
    assert "save" in draft_of(line, tmp_path, str).roles
    (tmp_path / "w.pt").write_text("weights")
    assert "save" not in draft_of(line, tmp_path, str).roles


@pytest.mark.parametrize(
    "script",
    ["# ArgumentParser( is not used here\nimport helper\nprint('x')\n", "import helper\nhelper.train()\n"],
)
def test_a_parser_elsewhere_is_no_reason_to_ask_for_help(tmp_path: Path, script: str) -> None:
    (tmp_path / "helper.py").write_text("import argparse\ndef train(): pass\n")
    (tmp_path / "train.py").write_text(script + "open('started', 'w')\n")
    draft_of(split_command("python train.py"), tmp_path, str)
    draft_of(split_command("bash run.sh train.py"), tmp_path, str, lambda _: True)
    assert not (tmp_path / "started").exists()


def test_a_long_limit_is_raised_as_a_whole_number(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        SCRIPT.replace(
            "parser.parse", "parser.add_argument('--max-steps', type=int, default=123457)\nparser.parse"
        )
    )
    found = draft_of(split_command("python train.py"), tmp_path, str).command_template()
    assert found.endswith("--max-steps 1234570")


def test_torchrun_gets_the_nodes_and_the_batch_of_a_rank(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    line = split_command("torchrun --standalone --nproc_per_node 2 --max-restarts=0 train.py --lr 0.2")
    draft = draft_of(line, tmp_path, str)
    assert draft.command_template() == (
        "torchrun --max-restarts=0 --nnodes {nodes} --node-rank {node_rank} --nproc-per-node "
        "{devices_per_node} --master-addr {main_address} --master-port {main_port} train.py "
        "--lr {learning_rate} --batch-size {batch_size_per_rank}"
    )
    assert (draft.batch_size, draft.learning_rate) == (128, 0.2)


def test_options_that_no_help_lists_are_taken_from_the_command(tmp_path: Path) -> None:
    (tmp_path / "train.sh").write_text("exit 0")
    line = split_command("bash train.sh --batch_size=16 optimizer.lr=0.3")
    draft = draft_of(line, tmp_path, str)
    assert draft.command_template() == "bash train.sh --batch_size={batch_size} optimizer.lr={learning_rate}"
