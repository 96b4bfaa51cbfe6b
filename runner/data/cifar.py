"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour 32x32 images, in the binary or the Python version."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from runner.data.dataset import Batch, InMemory, first
from runner.data.files import DataError, Layout, base, corrupt, find

PIXELS = 3 * 32 * 32
PER_TRAIN_FILE = {"cifar10": 10_000, "cifar100": 50_000}
TEST_IMAGES = 10_000


class _Version(NamedTuple):
    """One of the two forms in which the authors distribute a data set; the last file is the test set."""

    folder: str
    files: tuple[str, ...]


BINARY = {
    "cifar10": _Version("cifar-10-batches-bin", (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")),
    "cifar100": _Version("cifar-100-binary", ("train.bin", "test.bin")),
}
PYTHON = {
    "cifar10": _Version("cifar-10-batches-py", (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")),
    "cifar100": _Version("cifar-100-python", ("train", "test")),
}
REMEDY = "unpack the archive from https://www.cs.toronto.edu/~kriz/cifar.html there, or set dataset.download=true"


def cifar10(
    *,
    root: str | None = None,
    download: bool = False,
    augment: bool = True,
    train_samples: int | None = None,
    test_samples: int | None = None,
) -> InMemory:
    """Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images": 10 classes of (3, 32, 32).

    Args:
        root: where to look, in the folder itself and in cifar-10-batches-bin or cifar-10-batches-py below it. None:
            $DISTSGD_DATA, else ./data.
        download: fetch missing files (the Python version). For the launching process only.
        augment: crop at random after padding by four pixels, and mirror.
        train_samples: only the first so many training images.
        test_samples: likewise for testing.

    Raises:
        DataError: files are missing or corrupt, or the download failed.
        ValueError: more samples asked for than there are.
    """
    train, test = _load("cifar10", root, download)
    return InMemory(
        first(train, train_samples, "train_samples"),
        first(test, test_samples, "test_samples"),
        classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        crop_padding=4 if augment else 0,
        flip=augment,
    )


def cifar100(
    *,
    root: str | None = None,
    download: bool = False,
    augment: bool = True,
    train_samples: int | None = None,
    test_samples: int | None = None,
) -> InMemory:
    """As `cifar10`, with 100 (fine) classes, in cifar-100-binary or cifar-100-python."""
    train, test = _load("cifar100", root, download)
    return InMemory(
        first(train, train_samples, "train_samples"),
        first(test, test_samples, "test_samples"),
        classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        crop_padding=4 if augment else 0,
        flip=augment,
    )


def layouts(name: str, root: str | None) -> list[Layout]:
    """Where the files of `cifar10` or `cifar100` may lie, in the order in which that is looked at."""
    top = base(root)
    return [
        Layout(folder, version.files)
        for version in (BINARY[name], PYTHON[name])  # binary first: it needs no unpickling
        for folder in (top, top / version.folder)
    ]


def _load(name: str, root: str | None, download: bool) -> tuple[Batch, Batch]:
    def fetch() -> None:
        from torchvision.datasets import CIFAR10, CIFAR100
        from torchvision.datasets.utils import download_and_extract_archive

        # Not through the class: its constructor would unpickle without restriction.
        source = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
        download_and_extract_archive(source.url, str(base(root)), filename=source.filename, md5=source.tgz_md5)

    found = find(name, root, layouts(name, root), REMEDY, fetch if download else None)
    read = _read_binary if found.files == BINARY[name].files else _read_python
    *train_files, test_file = found.paths()
    parts = [read(path, name, PER_TRAIN_FILE[name]) for path in train_files]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return (images, labels), read(test_file, name, TEST_IMAGES)


def _read_binary(path: Path, name: str, count: int) -> Batch:
    """Records of one label byte (CIFAR-100: coarse, fine) and 3,072 pixels, channel by channel."""
    label_bytes = 1 if name == "cifar10" else 2
    try:
        records = np.fromfile(path, np.uint8)
    except OSError as error:
        raise corrupt(path, str(error), REMEDY) from error
    if len(records) != count * (label_bytes + PIXELS):
        raise corrupt(path, f"{len(records)} bytes instead of {count * (label_bytes + PIXELS)}", REMEDY)
    records = records.reshape(count, label_bytes + PIXELS)
    return _tensors(path, name, records[:, label_bytes:].copy(), records[:, label_bytes - 1].astype(np.int64))


def _read_python(path: Path, name: str, count: int) -> Batch:
    key = "labels" if name == "cifar10" else "fine_labels"
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        images, labels = content["data"], np.array(content[key], dtype=np.int64)
    except DataError:
        raise
    except Exception as error:  # broken pickles raise nearly anything
        raise corrupt(path, f"{type(error).__name__}: {error}", REMEDY) from error
    shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", None)
    if shape != (count, PIXELS) or dtype != np.uint8 or labels.shape != (count,):
        raise corrupt(path, f"images {shape} {dtype}, labels {labels.shape}, not {count} of each", REMEDY)
    return _tensors(path, name, images, labels)


def _tensors(path: Path, name: str, images: np.ndarray, labels: np.ndarray) -> Batch:
    classes = 10 if name == "cifar10" else 100
    if labels.min() < 0 or labels.max() >= classes:
        raise corrupt(path, f"labels {labels.min()}..{labels.max()} instead of 0..{classes - 1}", REMEDY)
    return torch.from_numpy(images).view(-1, 3, 32, 32), torch.from_numpy(labels)


def _reconstruct(_: type, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Stands in for numpy's function of that name, which moved between numpy versions."""
    return np.ndarray(shape, dtype)


class _Unpickler(pickle.Unpickler):
    """Admits what the authors' files hold, plain containers and numpy arrays: a pickle can otherwise run any code."""

    ADMITTED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise DataError(f"dataset.root: a pickle asks for {module}.{name}, which no CIFAR file holds; {REMEDY}")
        return self.ADMITTED[module, name]
