from __future__ import annotations

import gzip

import numpy as np
import pytest

from tuner.workloads.idx_files import find_idx, read_idx

CONTENT = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_plain_and_gzipped_files_hold_the_same(tmp_path, pack):
    path = tmp_path / "values"
    path.write_bytes(pack(CONTENT))
    values = read_idx(path)
    assert values.dtype == np.uint8
    assert values.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an IDX file of unsigned bytes"),
        (b"\0\0\x0d\x01\0\0\0\0", "is not an IDX file of unsigned bytes"),
        (CONTENT[:6], "is cut short: its header is incomplete"),
        (CONTENT[:-1], "holds 5 values where its header says 6"),
        (gzip.compress(CONTENT, mtime=0)[:-9], "is a damaged gzip file"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, words):
    path = tmp_path / "values"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_idx(path)


@pytest.mark.parametrize(
    "name",
    [
        "train-images-idx3-ubyte",
        "train-images-idx3-ubyte.gz",
        "train-images.idx3-ubyte",
        "train-images.idx3-ubyte.gz",
    ],
)
def test_the_usual_spellings_of_file_names_are_found(tmp_path, name):
    assert find_idx(tmp_path, "train-images-idx3-ubyte") is None
    (tmp_path / name).write_bytes(CONTENT)
    assert find_idx(tmp_path, "train-images-idx3-ubyte") == tmp_path / name
