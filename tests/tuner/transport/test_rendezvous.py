"""What ranks send each other before and after a training: tensors and text, never pickled objects."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.tuner.transport.many_ranks import CONTEXT
from tuner.transport.rendezvous import broadcast_text, gathered

PRODUCT = Path(__file__).parents[3]
#: Calls by which torch, ZeroMQ or Python unpickle what they receive.
PICKLES = re.compile(
    r"\b(gather_object|all_gather_object|broadcast_object_list|scatter_object_list|send_object_list"
    r"|recv_object_list|send_pyobj|recv_pyobj|pickle\.loads?|cloudpickle)\("
    r"|\btorch\.load\((?!.*weights_only=True)"
)


def _meet(path: str, rank: int, deeds: Any) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(path, 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    group = dist.group.WORLD
    assert group is not None
    texts = [broadcast_text(text if rank == 0 else "other", group) for text in ("", "folder/é")]
    own = ([b"a", b"first", b""], [b"", b"of 1", b"\0x"])[rank]
    lists = [gathered(data, group, rank=rank) for data in own]
    deeds.send((texts, lists))
    dist.destroy_process_group()


def test_ranks_share_texts_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    ends, processes = [], []
    for rank in range(2):
        ours, theirs = CONTEXT.Pipe()
        processes.append(
            CONTEXT.Process(target=_meet, args=(str(tmp_path / "store"), rank, theirs), daemon=True)
        )
        processes[-1].start()
        ends.append(ours)
    found = []
    for end in ends:
        assert end.poll(120), "the rank does not answer"
        found.append(end.recv())
    for process in processes:
        process.join(60)
    assert [texts for texts, _ in found] == [["", "folder/é"]] * 2
    assert found[0][1] == [[b"a", b""], [b"first", b"of 1"], [b"", b"\0x"]]
    assert found[1][1] == [[], [], []]


def test_no_rank_unpickles_what_another_process_sent() -> None:
    found = [
        f"{path.relative_to(PRODUCT)}:{number}"
        for folder in ("search_spaces", "tuner", "storage")
        for path in sorted((PRODUCT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PICKLES.search(line)
    ]
    assert found == []


def test_the_pattern_finds_what_it_forbids() -> None:
    assert PICKLES.search("dist.gather_object(own, owns)")
    assert PICKLES.search("content = torch.load(path)")
    assert not PICKLES.search("content = torch.load(path, weights_only=True)")
