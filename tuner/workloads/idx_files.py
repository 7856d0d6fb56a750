"""IDX files, the format of MNIST and its descendants: a header, then bytes; plain or gzipped."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes that an IDX file holds.

    The format: two zero bytes, the type, the number of dimensions, each dimension as a big-endian
    32-bit integer, the values (LeCun, http://yann.lecun.com/exdb/mnist/).

    Raises:
        ValueError: The file is not an IDX file of unsigned bytes, or is cut short.
    """
    content = path.read_bytes()
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    num_dimensions = content[3]
    start = 4 + 4 * num_dimensions
    if len(content) < start:
        raise ValueError(f"{path} is cut short: its header is incomplete")
    shape = struct.unpack(f">{num_dimensions}I", content[4:start])
    expected = int(np.prod(shape, dtype=np.int64))
    if len(content) - start != expected:
        raise ValueError(f"{path} holds {len(content) - start} values where its header says {expected}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()


def find_idx(folder: Path, stem: str) -> Path | None:
    """The file of this name in a folder, plain or gzipped, or None.

    Args:
        folder: Where to look.
        stem: Name such as `train-images-idx3-ubyte`; `train-images.idx3-ubyte` is found as well.
    """
    for name in (stem, stem.replace("-idx", ".idx")):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None
