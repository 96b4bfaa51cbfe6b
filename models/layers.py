"""What the networks share: dropout with its own generator, conv-BN-ReLU, He initialisation, the shape check."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero each element with probability ``p`` and scale the rest by 1/(1-p) (Srivastava et al., JMLR 2014).

    Unlike ``torch.nn.Dropout`` the mask never comes from torch's global generator, whose draws depend on which thread
    came first: it comes from ``generator``, set from outside before each forward pass (`set_dropout_generator`), on
    the device of the input. Equal seeds give equal masks, in float32 and float64 alike. In eval mode, or with p = 0,
    the layer is the identity and needs no generator.

    Raises ValueError unless 0 <= p < 1, and RuntimeError in train mode without a generator.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"a dropout probability must be in [0, 1), not {p}; 0 switches dropout off")
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Any floating-point shape in, the same shape, dtype and memory format out."""
        if not self.training or self.p == 0:
            return x
        if self.generator is None:
            raise RuntimeError(
                "Dropout in train mode has no generator: call models.layers.set_dropout_generator(model, generator) "
                "before the forward pass, or model.eval()"
            )
        # Always drawn in float32: the stream, and so the mask, must not depend on the dtype of the run.
        keep = torch.rand(x.shape, generator=self.generator, device=x.device, dtype=torch.float32) >= self.p
        return x * keep.to(x.dtype).div_(1 - self.p)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"p={self.p}"


def dropout_layers(model: nn.Module) -> list[Dropout]:
    """The `Dropout` layers of ``model``, in the order of ``model.modules()``; empty for most networks.

    Build the list once and, per step, ``for layer in layers: layer.generator = generator``: this costs nothing where
    there is no dropout, while `set_dropout_generator` walks the modules each time.
    """
    return [module for module in model.modules() if isinstance(module, Dropout)]


def set_dropout_generator(model: nn.Module, generator: torch.Generator | None) -> None:
    """Let every `Dropout` layer of ``model`` draw from ``generator``, one after another; None takes it away."""
    for layer in dropout_layers(model):
        layer.generator = generator


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution, BatchNorm, ReLU, to be unpacked into an nn.Sequential; for odd kernels, padded by half of one.

    The convolution has no bias: BatchNorm would subtract it again.
    """
    return [
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, stride=stride, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def he_init_(model: nn.Module) -> None:
    """Draw every convolution's weight from N(0, 2/fan_out) (He et al., ICCV 2015); the rest keeps torch's default."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # nn.init.kaiming_normal_ would count a depthwise convolution's other channels as well.
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))


def check_shape(
    model: str,
    shape: Sequence[int],
    *,
    channels: int | None = None,
    at_least: int = 1,
    exactly: int | None = None,
    instead: str = "model=mlp takes any shape",
) -> tuple[int, int, int]:
    """Return ``shape`` as (C, H, W), or refuse it in the name of ``model``.

    ``channels``: the only C allowed; ``at_least``: the smallest H and W in pixels; ``exactly``: the only H and W
    allowed; ``instead``: what the message advises. Raises ValueError.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"model={model}: shape={tuple(shape)} is not an image shape; it must be (channels, height, width)"
        )
    c, h, w = (int(size) for size in shape)
    sizes_fit = h == w == exactly if exactly else min(h, w) >= at_least
    if not sizes_fit or channels not in (None, c):
        pixels = f"{exactly}x{exactly}" if exactly else f"at least {at_least}x{at_least}"
        kind = {None: "", 1: "grey ", 3: "RGB "}.get(channels, f"{channels}-channel ")
        raise ValueError(
            f"model={model} takes {kind}images of {pixels} pixels, but the data set's images are {c}x{h}x{w} "
            f"(channels x height x width); {instead}"
        )
    return c, h, w
