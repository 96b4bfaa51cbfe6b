"""What the modelled work costs, apart from the problem that is really trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.build import ConfigError

Pause = tuple[float, float, int]
"""(from when, until when a worker stands still, its place among those of a reduction)"""


@dataclass
class Cost:
    """The work whose time the virtual clock tells.

    Args:
        of: what it is, for tables: "ResNet-50"; None: the problem itself.
        message_bytes: of one vector (d,); None: what the problem's own vectors have.
        seconds_per_gradient: of one mini-batch on one GPU; None: the cluster's `compute.seconds`.
        overlap_backward: whether an averaged gradient is reduced bucket by bucket while the backward pass still runs,
            as torch's DDP does, or after it.
        backward_share: of a gradient's time, the part that is the backward pass.
        bucket_bytes: size of a bucket.
        first_bucket_bytes: of the first one, smaller so that the reduction starts early.

    Raises:
        ConfigError: a value is out of range.
    """

    of: str | None = None
    message_bytes: int | None = None
    seconds_per_gradient: float | None = None
    overlap_backward: bool = True
    backward_share: float = 2 / 3
    bucket_bytes: int = 25 * 2**20
    first_bucket_bytes: int = 2**20

    def __post_init__(self) -> None:
        for name in ("message_bytes", "seconds_per_gradient", "bucket_bytes", "first_bucket_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"cost.{name}={value}: must be positive")
        if not 0 <= self.backward_share <= 1:
            raise ConfigError(f"cost.backward_share={self.backward_share}: must be between 0 and 1")

    def buckets(self, nbytes: float) -> list[tuple[float, float]]:
        """(bytes, share of the gradient's time after which it is ready) of each bucket, in the order of readiness.

        The backward pass is taken to produce its gradients at a steady rate of bytes.
        """
        if not self.overlap_backward:
            return [(nbytes, 1.0)]
        buckets: list[tuple[float, float]] = []
        done = 0.0
        while done < nbytes:
            size = min(nbytes - done, self.bucket_bytes if buckets else self.first_bucket_bytes)
            done += size
            buckets.append((size, 1 - self.backward_share * (1 - done / nbytes)))
        return buckets


def reduced_at(
    buckets: Sequence[tuple[float, float]],
    all_reduce_s: Callable[[float, float], float],
    started: Sequence[float],
    seconds: Sequence[float],
    pauses: Sequence[Pause] = (),
) -> float:
    """When the last bucket is reduced, for workers that started their gradients at times and take so many seconds.

    A bucket is reduced when all workers have it and the one before it is done. While one of them stands still, so does
    the reduction.

    Args:
        all_reduce_s: (bytes, the time at which it begins) -> seconds of an all-reduce.
        pauses: in the order of their beginnings.
    """
    import numpy as np

    starts, lengths, end = np.asarray(started), np.asarray(seconds), 0.0
    for size, share in buckets:
        ready = starts + share * lengths
        for since_s, until_s, place in pauses:
            if ready[place] > since_s:
                ready[place] += until_s - since_s
        end = _reduced_from(max(end, float(ready.max())), size, all_reduce_s, pauses)
    return end


def _reduced_from(
    begin: float, nbytes: float, all_reduce_s: Callable[[float, float], float], pauses: Sequence[Pause]
) -> float:
    """When a reduction is over that could begin then."""
    left = 1.0
    for since_s, until_s, _ in pauses:
        if begin < until_s:
            seconds = left * all_reduce_s(nbytes, begin)
            if begin + seconds <= since_s:
                break
            if begin < since_s:
                left = max(0.0, left * (1 - (since_s - begin) / seconds))
            begin = until_s
    return begin + left * all_reduce_s(nbytes, begin)
