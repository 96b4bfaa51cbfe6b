"""What a data set offers to training, and the one that lives in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from runner.data.augmentation import crop_and_flip
from runner.data.sampling import Sampler
from runner.randomness import uniform

Batch = tuple[Tensor, Tensor]
"""x (B, C, H, W), normalised, and y (B,) int64, on the data set's device."""


class Batches(Protocol):
    """One rank's training batches, by draw. Any order is allowed; draws in sequence are fastest."""

    def __call__(self, draw: int) -> Batch: ...

    def close(self) -> None:
        """End whatever works in the background. May be called twice."""


class Dataset(Protocol):
    """Images with labels, a training and a test part."""

    shape: tuple[int, int, int]
    """(C, H, W) of one image as the network sees it."""
    classes: int

    @property
    def train_size(self) -> int: ...

    @property
    def test_size(self) -> int: ...

    @property
    def train_labels(self) -> Tensor:
        """(train_size,) int64."""

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same data, whose batches are on `device` with x in `dtype` (float32 unless told)."""

    def batches(self, sampler: Sampler, rank: int, seed: int) -> Batches:
        """Which samples: `sampler`'s word. Augmentation is keyed by (seed, epoch, sample)."""

    def test_batches(self, batch_size: int, part: int = 0, parts: int = 1) -> Iterator[Batch]:
        """The `part`-th of `parts` contiguous parts of the test set, in order; the last batch may be smaller."""


def part_bounds(size: int, part: int, parts: int) -> tuple[int, int]:
    """First and one past the last of the `part`-th of `parts` nearly equal contiguous parts."""
    return part * size // parts, (part + 1) * size // parts


class Normalisation:
    """(B, C, H, W) uint8 pixels to floats: (pixel / white - mean) / std, per channel."""

    def __init__(self, white: float, mean: Sequence[float], std: Sequence[float]) -> None:
        # Multiplying and adding in place is half the work of the formula as written.
        spread = torch.tensor(std, dtype=torch.float64).view(-1, 1, 1)
        self._scale = 1 / (white * spread)
        self._shift = -torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1) / spread

    def to(self, device: str | torch.device | None, dtype: torch.dtype) -> Normalisation:
        other = copy.copy(self)
        other._scale, other._shift = self._scale.to(device, dtype), self._shift.to(device, dtype)
        return other

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._scale.dtype).mul_(self._scale).add_(self._shift)


class InMemory:
    """A data set held as uint8 tensors: a batch is a pure function, with no loader processes.

    Args:
        train: images (N, C, H, W) uint8 and labels (N,) int64.
        test: likewise.
        classes: number of classes.
        white: the pixel value that stands for 1.
        mean: per channel, of pixel / white.
        std: likewise.
        crop_padding: training images are padded with this many black pixels on each side and cropped at random.
        flip: training images are mirrored with probability 1/2.
    """

    def __init__(
        self,
        train: Batch,
        test: Batch,
        *,
        classes: int,
        white: float = 255,
        mean: Sequence[float],
        std: Sequence[float],
        crop_padding: int = 0,
        flip: bool = False,
    ) -> None:
        self._train, self._test = train, test
        self.classes = classes
        _, channels, height, width = train[0].shape
        self.shape = (channels, height, width)
        self.crop_padding, self.flip = crop_padding, flip
        self._exact = Normalisation(white, mean, std)  # float64, so that .to(dtype=float64) is exact
        self._normalise = self._exact.to(None, torch.float32)
        self._dtype = torch.float32

    @property
    def train_size(self) -> int:
        return len(self._train[1])

    @property
    def test_size(self) -> int:
        return len(self._test[1])

    @property
    def train_labels(self) -> Tensor:
        return self._train[1]

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        other = copy.copy(self)
        device = self.train_labels.device if device is None else device
        other._dtype = dtype or self._dtype
        other._train = (self._train[0].to(device), self._train[1].to(device))
        other._test = (self._test[0].to(device), self._test[1].to(device))
        other._normalise = self._exact.to(device, other._dtype)
        return other

    def train_batch(self, indices: Tensor, *, seed: int, epoch: int) -> Batch:
        """Training samples, augmented: in one epoch a sample looks the same whatever batch or worker it is in.

        Args:
            indices: (B,) int64, on any device.
            seed: of the run.
            epoch: keys the augmentation, with seed and sample.
        """
        images, labels = self._train
        indices = indices.to(images.device, non_blocking=True)
        pixels = images.index_select(0, indices)
        if self.crop_padding or self.flip:
            which = torch.arange(3, device=pixels.device)
            draws = uniform(seed, "augmentation", epoch, indices[:, None], which)
            pixels = crop_and_flip(pixels, draws, padding=self.crop_padding, flip=self.flip)
        return self._normalise(pixels), labels.index_select(0, indices)

    def test_batch(self, which: slice | Tensor) -> Batch:
        """Test samples as they are: a slice or (B,) int64 indices."""
        return self._normalise(self._test[0][which]), self._test[1][which]

    def batches(self, sampler: Sampler, rank: int, seed: int) -> Batches:
        return _Direct(self, sampler, rank, seed)

    def test_batches(self, batch_size: int, part: int = 0, parts: int = 1) -> Iterator[Batch]:
        start, stop = part_bounds(self.test_size, part, parts)
        for first in range(start, stop, batch_size):
            yield self.test_batch(slice(first, min(first + batch_size, stop)))


class _Direct:
    """Batches made at the moment they are asked for."""

    def __init__(self, dataset: InMemory, sampler: Sampler, rank: int, seed: int) -> None:
        self._dataset, self._sampler, self._rank, self._seed = dataset, sampler, rank, seed

    def __call__(self, draw: int) -> Batch:
        indices = self._sampler.indices(self._rank, draw)
        return self._dataset.train_batch(indices, seed=self._seed, epoch=self._sampler.epoch_of(draw))

    def with_others(self, others: Sequence[_Direct], draws: Sequence[int]) -> Batch | None:
        """As `together`; None where the draws are of several epochs, which are augmented apart."""
        epochs = {self._sampler.epoch_of(draw) for draw in draws}
        if len(epochs) > 1 or any(each._dataset is not self._dataset for each in others):
            return None
        indices = [each._sampler.indices(each._rank, draw) for each, draw in zip(others, draws, strict=True)]
        images, labels = self._dataset.train_batch(torch.cat(indices), seed=self._seed, epoch=epochs.pop())
        return images.unflatten(0, (len(others), -1)), labels.unflatten(0, (len(others), -1))

    def close(self) -> None:
        pass


def together(batches: Sequence[Batches], draws: Sequence[int]) -> Batch:
    """One batch of each of several ranks, stacked: x (N, B, C, H, W) and y (N, B), made in one go if possible."""
    alike = [each for each in batches if isinstance(each, _Direct)]
    if len(alike) == len(batches):
        one = alike[0].with_others(alike, draws)
        if one is not None:
            return one
    images, labels = zip(*(each(draw) for each, draw in zip(batches, draws, strict=True)), strict=True)
    return torch.stack(images), torch.stack(labels)


def first(samples: Batch, count: int | None, key: str) -> Batch:
    """The first `count` samples, or all of them for None.

    Raises:
        ValueError: there are not that many, or count < 1.
    """
    images, labels = samples
    if count is None:
        return samples
    if not 1 <= count <= len(labels):
        raise ValueError(f"dataset.{key}={count}: must be between 1 and {len(labels)}, or null for all of them")
    return images[:count], labels[:count]
