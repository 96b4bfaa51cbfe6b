"""Fashion-MNIST: 60,000 + 10,000 grey 28x28 images of clothes in ten classes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from runner.data.dataset import Batch, InMemory, first
from runner.data.files import Layout, base, corrupt, find, found_whole

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
UNPACKED = tuple(file.removesuffix(".gz") for file in FILES)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
REMEDY = "run `apt-get install dataset-fashion-mnist` or set dataset.download=true"


def fashion_mnist(
    *,
    root: str | None = None,
    download: bool = False,
    augment: bool = False,
    train_samples: int | None = None,
    test_samples: int | None = None,
) -> InMemory:
    """Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747, from the four idx files, gzipped or not.

    Args:
        root: where to look, in the folder itself and in FashionMNIST/raw below it (torchvision's layout). None: where
            Debian's package dataset-fashion-mnist puts them, then $DISTSGD_DATA, else ./data.
        download: fetch missing files through torchvision. For the launching process only.
        augment: crop at random after padding by four pixels.
        train_samples: only the first so many training images.
        test_samples: likewise for testing.

    Raises:
        DataError: files are missing or corrupt, or the download failed.
        ValueError: more samples asked for than there are.
    """

    def fetch() -> None:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(base(root), download=True)

    train_images, train_labels, test_images, test_labels = find(
        "fashion_mnist", root, layouts(root), REMEDY, fetch if download else None
    ).paths()
    return InMemory(
        _read(train_images, train_labels, 60_000, "train_samples", train_samples),
        _read(test_images, test_labels, 10_000, "test_samples", test_samples),
        classes=10,
        mean=(0.2860,),
        std=(0.3530,),
        crop_padding=4 if augment else 0,
    )


def layouts(root: str | None) -> list[Layout]:
    """Where the files may lie, in the order in which that is looked at."""
    top = base(root)
    raw = top / "FashionMNIST" / "raw"
    folders = (top, raw) if root is not None else (DEBIAN, top, raw)
    return [Layout(folder, files) for folder in folders for files in (FILES, UNPACKED)]


def _read(images: Path, labels: Path, count: int, key: str, wanted: int | None) -> Batch:
    """The first `wanted` images; on a rank no others are unpacked, which would take longer than some runs."""
    y = _read_idx(labels, (count,))
    if y.max() > 9:
        raise corrupt(labels, f"label {y.max()} of 0..9", REMEDY)
    x = _read_idx(images, (count, 28, 28), wanted if found_whole.get() else None)
    return first((torch.from_numpy(x).view(-1, 1, 28, 28), torch.from_numpy(y.astype(np.int64))), wanted, key)


def _read_idx(path: Path, shape: tuple[int, ...], wanted: int | None = None) -> np.ndarray:
    """An idx file of unsigned bytes: two zero bytes, type 8, number of dimensions, big-endian sizes, data.

    Args:
        wanted: how many along the first dimension, where that is less than there are.
    """
    start = 4 + 4 * len(shape)
    part = shape if wanted is None or not 1 <= wanted < shape[0] else (wanted, *shape[1:])
    length = start + math.prod(part)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = bytearray(file.read(-1 if part == shape else length))
    except (OSError, EOFError, zlib.error) as error:
        raise corrupt(path, str(error), REMEDY) from error
    if content[:4] != bytes([0, 0, 8, len(shape)]):
        raise corrupt(path, f"starts with {content[:4].hex()}, not with an idx header", REMEDY)
    sizes = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if sizes != shape or len(content) != length:
        raise corrupt(path, f"holds {len(content) - start} bytes as {sizes}, not {shape}", REMEDY)
    return np.frombuffer(content, np.uint8, offset=start).reshape(part)
