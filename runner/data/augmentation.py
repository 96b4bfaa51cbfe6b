"""Random crop and mirror image for a whole batch at once, from given random numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def crop_and_flip(pixels: Tensor, draws: Tensor, *, padding: int, flip: bool) -> Tensor:
    """Pad with black, crop back to the old size at a random place, then mirror half of the crops.

    The augmentation of He et al. 2016 (arXiv:1512.03385, section 4.2) for CIFAR, there with padding 4.

    Args:
        pixels: (B, C, H, W), any dtype.
        draws: (B, 3) uniform in [0, 1): decide top, left and mirror.
        padding: black pixels added on each side.
        flip: whether to mirror at all.

    Returns:
        (B, C, H, W), contiguous.
    """
    batch, channels, height, width = pixels.shape
    top, left = (draws[:, :2] * (2 * padding + 1)).long().unbind(1)
    columns = torch.arange(width, device=pixels.device).expand(batch, width)
    if flip:
        columns = torch.where(draws[:, 2:] < 0.5, columns.flip(1), columns)
    columns = columns + left[:, None]
    rows = torch.arange(height, device=pixels.device) + top[:, None]
    # Crop and mirror are one look-up in the padded image, the same for every channel.
    source = (rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]).view(batch, 1, height * width)
    padded = torch.nn.functional.pad(pixels, [padding] * 4).flatten(2)
    return padded.gather(2, source.expand(batch, channels, -1)).view(pixels.shape)
