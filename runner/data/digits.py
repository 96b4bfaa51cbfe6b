"""The embedded data set: 1,797 real 8x8 images of handwritten digits (see digits.LICENSE)."""

from __future__ import annotations

import gzip
import io
from importlib import resources

import numpy as np
import torch

from runner.data.dataset import InMemory, first


def digits(*, augment: bool = False, train_samples: int | None = None, test_samples: int | None = None) -> InMemory:
    """Optical Recognition of Handwritten Digits, Alpaydin and Kaynak 1998: 10 classes of (1, 8, 8).

    Every fifth image (0, 5, 10, ...) is for testing: 360; the others are for training: 1,437.

    Args:
        augment: crop at random after padding by one pixel.
        train_samples: only the first so many training images.
        test_samples: likewise for testing.

    Raises:
        ValueError: more samples asked for than there are.
    """
    packed = (resources.files("runner.data") / "digits.csv.gz").read_bytes()
    table = np.loadtxt(io.BytesIO(gzip.decompress(packed)), delimiter=",", dtype=np.uint8)
    images = torch.from_numpy(table[:, :64].reshape(-1, 1, 8, 8))
    labels = torch.from_numpy(table[:, 64].astype(np.int64))
    testing = torch.arange(len(labels)) % 5 == 0
    return InMemory(
        first((images[~testing], labels[~testing]), train_samples, "train_samples"),
        first((images[testing], labels[testing]), test_samples, "test_samples"),
        classes=10,
        white=16,
        mean=(0.3052,),
        std=(0.3763,),
        crop_padding=1 if augment else 0,
    )
