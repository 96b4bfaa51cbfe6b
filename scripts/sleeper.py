"""A network that sleeps instead of computing, so that many of them share few cores without slowing each other."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn


class _Sleep(torch.autograd.Function):
    """Passes on what it is given; both passes take so many seconds."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, forward_s: float, backward_s: float) -> Tensor:
        time.sleep(forward_s)
        ctx.backward_s, ctx.like = backward_s, weight
        return hidden.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        time.sleep(ctx.backward_s)
        return gradients[0], torch.zeros_like(ctx.like), None, None


class Sleeper(nn.Module):
    """Layers of equally many parameters. The backward pass takes twice as long as the forward pass.

    Its gradient is 0 and arrives layer by layer, last layer first: torch's DDP reduces it as it would any other.

    Args:
        length: parameters in all.
        seconds: of one forward and backward pass.
    """

    def __init__(self, shape: torch.Size, classes: int, length: int, seconds: float, layers: int = 32) -> None:
        super().__init__()
        self.classes, self.layer_s = classes, seconds / layers
        self.weights = nn.ParameterList([torch.zeros(length // layers) for _ in range(layers)])

    def forward(self, images: Tensor) -> Tensor:
        """(B, ...) -> logits (B, classes), all 0."""
        hidden = images.new_zeros(len(images), self.classes)
        for weight in self.weights:
            hidden = _Sleep.apply(hidden, weight, self.layer_s / 3, 2 * self.layer_s / 3)
        return hidden
