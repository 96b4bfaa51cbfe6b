"""ImageNet-1k, or any folder of images laid out like it: train/<class>/* and val/<class>/*."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from runner.data.dataset import Batch, Batches, Normalisation, part_bounds
from runner.data.files import DataError, base
from runner.data.sampling import Claims, Sampler
from runner.lifeline import die_with_parent
from runner.randomness import stream_seed

LAYOUT = (
    "expected train/<class>/*.JPEG and val/<class>/*.JPEG with the same classes; set dataset.root to the folder of both"
)
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
"""Signals by which a scheduler warns all processes of a job."""
Key = tuple[int, int]
"""(epoch, sample): what a loader process is asked for."""


def imagenet(
    *, root: str | None = None, augment: bool = True, crop: int = 224, resize: int = 256, loader_processes: int = 4
) -> ImageFolders:
    """Russakovsky et al. 2015, arXiv:1409.0575: 1.28 million + 50,000 images in 1,000 classes, as (3, 224, 224).

    Making it looks at the folders only; the images are listed when their number is asked for, and read by loader
    processes. Training images are cropped at random (RandomResizedCrop) and mirrored, test images are scaled so that
    the shorter side is `resize` and cropped in the middle (the set-up of Goyal et al. 2017, arXiv:1706.02677).

    Args:
        root: the folder of train/ and val/. None: imagenet below $DISTSGD_DATA, else ./data/imagenet.
        augment: False treats training images like test images.
        crop: side of the image that the network sees, in pixels.
        resize: shorter side of a test image before it is cropped.
        loader_processes: per training process, at most as many as there are cores; 0 reads in the training process.

    Raises:
        DataError: train/ or val/ is missing or empty, or their classes differ.
        ValueError: a number out of range.
    """
    for key, value, least in (("crop", crop, 1), ("resize", resize, crop), ("loader_processes", loader_processes, 0)):
        if value < least:
            raise ValueError(f"dataset.{key}={value}: must be {least} or more")
    folder = base(root) if root is not None else base(None) / "imagenet"
    where = f"dataset.root={'null' if root is None else root}"
    return ImageFolders(folder, where, augment=augment, crop=crop, resize=resize, loader_processes=loader_processes)


class ImageFolders:
    """A `runner.data.dataset.Dataset` whose images stay on disk."""

    def __init__(
        self, folder: Path, where: str, *, augment: bool, crop: int, resize: int, loader_processes: int
    ) -> None:
        self._folder, self._where = folder, where
        self._augment, self._crop, self._resize = augment, crop, resize
        self._processes = min(loader_processes, len(os.sched_getaffinity(0)))  # more only slows down, and torch warns
        self.classes = len(self._check())
        self.shape = (3, crop, crop)
        self._device, self._dtype = torch.device("cpu"), torch.float32
        self._exact = Normalisation(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self._normalise = self._exact.to(None, torch.float32)

    def _check(self) -> list[str]:
        """The classes; cheap, because a million files are not listed."""
        from torchvision.datasets.folder import IMG_EXTENSIONS

        found = {}
        for part in ("train", "val"):
            try:
                with os.scandir(self._folder / part) as entries:
                    found[part] = sorted(entry.name for entry in entries if entry.is_dir())
            except OSError as error:
                raise DataError(f"{self._where}: {self._folder / part}: {error.strerror}; {LAYOUT}") from error
            if not found[part]:
                raise DataError(f"{self._where}: {self._folder / part} has no class folders; {LAYOUT}")
            one = self._folder / part / found[part][0]
            if not any(file.name.lower().endswith(IMG_EXTENSIONS) for file in one.iterdir()):
                raise DataError(f"{self._where}: {one} has no image; {LAYOUT}")
        if found["train"] != found["val"]:
            odd = sorted(set(found["train"]) ^ set(found["val"]))
            raise DataError(f"{self._where}: {odd[0]} is a class in only one of train/ and val/; {LAYOUT}")
        return found["train"]

    @cached_property
    def _train(self) -> _Images:
        return self._list("train", _training_transform(self._crop) if self._augment else self._test_transform())

    @cached_property
    def _test(self) -> _Images:
        return self._list("val", self._test_transform())

    def _test_transform(self) -> Any:
        from torchvision.transforms import v2

        return v2.Compose([v2.Resize(self._resize), v2.CenterCrop(self._crop), v2.PILToTensor()])

    def _list(self, part: str, transform: Any) -> _Images:
        from torchvision.datasets import ImageFolder

        try:
            listed = ImageFolder(self._folder / part)
        except OSError as error:  # FileNotFoundError for a class without images
            raise DataError(f"{self._where}: {error}; {LAYOUT}") from error
        return _Images([path for path, _ in listed.samples], listed.targets, transform)

    @property
    def train_size(self) -> int:
        return len(self._train)

    @property
    def test_size(self) -> int:
        return len(self._test)

    @property
    def train_labels(self) -> Tensor:
        return torch.from_numpy(self._train.labels)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        other = copy.copy(self)
        other._device = self._device if device is None else torch.device(device)
        other._dtype = dtype or self._dtype
        other._normalise = self._exact.to(other._device, other._dtype)
        return other

    def batches(self, sampler: Sampler, rank: int, seed: int) -> Batches:
        if isinstance(sampler, Claims) and self._processes:
            return _OnDemand(self, sampler, rank, seed, self._processes)
        return _Prefetched(self, sampler, rank, seed)

    def test_batches(self, batch_size: int, part: int = 0, parts: int = 1) -> Iterator[Batch]:
        start, stop = part_bounds(self.test_size, part, parts)
        keys = [[(0, i) for i in range(at, min(at + batch_size, stop))] for at in range(start, stop, batch_size)]
        for batch in self.load(self._test, keys):
            yield self.finish(batch)

    def load(self, images: TorchDataset[Any], keys: Iterable[list[Key]]) -> DataLoader[Any]:
        """Read the batches of `keys` in order, ahead of time."""
        return DataLoader(
            images,
            batch_sampler=keys,
            num_workers=self._processes,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_start_loader,
            generator=torch.Generator(),  # or it would draw from torch's global one
            multiprocessing_context=_context() if self._processes else None,
        )

    def finish(self, batch: Batch) -> Batch:
        """Pixels travel as bytes and become floats on the device."""
        pixels, labels = batch
        return self._normalise(pixels.to(self._device, non_blocking=True)), labels.to(self._device, non_blocking=True)

    def train_images(self, seed: int) -> _Images:
        """The training images, augmented by this seed."""
        return self._train.seeded(seed)


def _context() -> BaseContext:
    """Loaders are forked from a server, which goes on where a scheduler warns all processes of a job.

    A fork of this process would copy the locks of gloo's and CUDA's threads; the server imports torch once for all.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.utils.data", "torchvision.datasets", "torchvision.transforms.v2"])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for start in (resource_tracker.ensure_running, forkserver.ensure_running):  # the first lets SIGTERM through again
        signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)  # which they inherit
        start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


# Virtual workers read in several threads of one process, and torchvision's augmentation draws from torch's global
# generator.
_READING = threading.Lock()


class _Prefetched:
    """Training batches read ahead by loader processes, in the order of the draws."""

    def __init__(self, dataset: ImageFolders, sampler: Sampler, rank: int, seed: int) -> None:
        self._dataset, self._sampler, self._rank = dataset, sampler, rank
        self._images = dataset.train_images(seed)
        self._next: int | None = None
        self._iterator: Iterator[Batch] | None = None

    def __call__(self, draw: int) -> Batch:
        with _READING:
            if self._iterator is None or draw != self._next:
                self.close()
                self._iterator = iter(self._dataset.load(self._images, _Draws(self._sampler, self._rank, draw)))
            self._next = draw + 1
            batch = next(self._iterator)
        return self._dataset.finish(batch)

    def close(self) -> None:
        self._iterator = None  # its end takes the loader processes along


class _OnDemand:
    """Training batches whose order nobody knows beforehand: each is read when asked for, by all loaders together."""

    def __init__(self, dataset: ImageFolders, sampler: Sampler, rank: int, seed: int, processes: int) -> None:
        self._dataset, self._sampler, self._rank, self._processes = dataset, sampler, rank, processes
        self._images = dataset.train_images(seed)
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, draw: int) -> Batch:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._processes, _context(), _start_reader, (self._images,))
        keys = _keys(self._sampler, self._rank, draw)
        share = -(-len(keys) // self._processes)
        parts = self._pool.map(_read, [keys[at : at + share] for at in range(0, len(keys), share)])
        pixels, labels = zip(*parts, strict=True)
        return self._dataset.finish((torch.cat(pixels), torch.cat(labels)))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


_images: _Images
"""Of a process that reads on demand."""


def _start_reader(images: _Images) -> None:
    global _images
    _images = images
    torch.set_num_threads(1)
    _start_loader(0)


def _read(keys: list[Key]) -> Batch:
    pixels, labels = default_collate([_images[key] for key in keys])
    return pixels, labels


def _keys(sampler: Sampler, rank: int, draw: int) -> list[Key]:
    epoch = sampler.epoch_of(draw)
    return [(epoch, index) for index in sampler.indices(rank, draw).tolist()]


class _Draws:
    """The keys of draw `start`, `start` + 1, ... without end."""

    def __init__(self, sampler: Sampler, rank: int, start: int) -> None:
        self._sampler, self._rank, self._start = sampler, rank, start

    def __iter__(self) -> Iterator[list[Key]]:
        for draw in itertools.count(self._start):
            yield _keys(self._sampler, self._rank, draw)


class _Images(TorchDataset[tuple[Tensor, int]]):
    """Image files by key (epoch, sample), as (3, H, W) uint8 tensors with their label."""

    def __init__(self, paths: list[str], labels: list[int], transform: Any) -> None:
        # Arrays, not lists: a million Python strings would be copied into each loader process one by one.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.labels = np.array(labels, dtype=np.int64)
        self.transform = transform
        self.seed = 0

    def seeded(self, seed: int) -> _Images:
        other = copy.copy(self)
        other.seed = seed
        return other

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        from torchvision.datasets.folder import default_loader

        epoch, index = key
        path = os.fsdecode(self.paths[index])
        try:
            image = default_loader(path)
        except OSError as error:
            raise DataError(f"dataset.root: {path} cannot be read as an image: {error}") from None
        # torchvision's transforms draw from torch's global generator; no CUDA generator is touched.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_seed(self.seed, "augmentation", epoch, index))
            return self.transform(image), int(self.labels[index])


def _training_transform(crop: int) -> Any:
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomResizedCrop(crop), v2.RandomHorizontalFlip(), v2.PILToTensor()])


def _start_loader(_: int) -> None:
    """The first thing in a loader process: it ends with its training process, and not on Ctrl-C.

    Ctrl-C reaches the whole process group, and a scheduler's warning all processes of a job; but the training process
    decides when its loaders end.
    """
    for number in (signal.SIGINT, *WARNINGS):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
