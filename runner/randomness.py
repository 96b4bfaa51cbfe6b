"""Randomness by name: every stream is a pure function of (seed, purpose, keys), so nothing has to be stored to resume.

A purpose is a short phrase such as "permutation"; the keys say which one (a worker, an epoch, a draw). Two streams
whose names differ in anything are independent, and none of them touches torch's global generator.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_TWO_64 = 1 << 64
# SplitMix64's constants (Steele, Lea, Flood, OOPSLA 2014), as the signed numbers that torch.int64 holds.
_GAMMA = 0x9E3779B97F4A7C15 - _TWO_64
_FACTOR_1 = 0xBF58476D1CE4E5B9 - _TWO_64
_FACTOR_2 = 0x94D049BB133111EB - _TWO_64


def stream_seed(seed: int, purpose: str, *keys: int) -> int:
    """A 63-bit seed for the stream of that name; the same on every machine, version and process."""
    name = json.dumps([seed, purpose, *keys]).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *keys: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator at the start of the stream of that name. CPU and CUDA generators draw different numbers."""
    import torch

    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, *keys))


def uniform(seed: int, purpose: str, key: int | Tensor, *keys: int | Tensor) -> Tensor:
    """One number per combination of keys, from a hash: no state, no order, equal on CPU and CUDA.

    For a single key the bits are SplitMix64's output number `key`; each further key starts a SplitMix64 from there.

    Args:
        seed: the run's seed.
        purpose: the stream's name.
        key: an int or an int64 tensor; an int means the same as a tensor that holds it.
        keys: further ones; tensors broadcast against each other.

    Returns:
        float64 in [0, 1) of the broadcast shape, on the tensors' device; multiples of 2**-53.
    """
    import torch

    bits = torch.tensor(stream_seed(seed, purpose))
    for each in (key, *keys):
        # int64 wraps around, which is SplitMix64's arithmetic modulo 2**64.
        bits = _finalise(bits + (torch.tensor(each) if isinstance(each, int) else each) * _GAMMA)
    return _shift(bits, 11).double() * 2.0**-53


def _finalise(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _FACTOR_1
    z = (z ^ _shift(z, 27)) * _FACTOR_2
    return z ^ _shift(z, 31)


def _shift(z: Tensor, places: int) -> Tensor:
    """Logical shift to the right; torch's own copies the sign bit."""
    return (z >> places) & ((1 << (64 - places)) - 1)
