"""ImageNet networks of 2014-2017 in their CIFAR versions: a 3x3 stem, strides for 32x32 images, BatchNorm throughout.

One linear layer follows the global average pool in all three; there is no dropout and there are no auxiliary heads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers import check_shape, conv_bn_relu, he_init_


def vgg19_cifar(shape: Sequence[int], classes: int) -> nn.Sequential:
    """VGG-19 (Simonyan, Zisserman, ICLR 2015, arXiv:1409.1556, table 1, E) with BatchNorm and one linear layer.

    Input (B, C, H, W), usually (B, 3, 32, 32), of at least 32x32 pixels; logits (B, classes).
    20,035,018 parameters for 3x32x32 and 10 classes. Raises ValueError for a smaller image.
    """
    in_channels, _, _ = check_shape("vgg19_cifar", shape, at_least=32, instead="model=resnet20 takes smaller ones")
    layers: list[nn.Module] = []
    for depth, width in ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)):
        for _ in range(depth):
            layers += conv_bn_relu(in_channels, width, 3)
            in_channels = width
        layers.append(nn.MaxPool2d(2))
    return _with_head(layers, in_channels, classes)


# Szegedy et al., table 1: outputs of the 1x1 branch, 3x3 reduction, 3x3, 5x5 reduction, 5x5, pool projection.
# None is a 3x3 max-pooling of stride 2.
_GOOGLENET: tuple[tuple[int, int, int, int, int, int] | None, ...] = (
    (64, 96, 128, 16, 32, 32),  # 3a
    (128, 128, 192, 32, 96, 64),  # 3b
    None,
    (192, 96, 208, 16, 48, 64),  # 4a
    (160, 112, 224, 24, 64, 64),  # 4b
    (128, 128, 256, 24, 64, 64),  # 4c
    (112, 144, 288, 32, 64, 64),  # 4d
    (256, 160, 320, 32, 128, 128),  # 4e
    None,
    (256, 160, 320, 32, 128, 128),  # 5a
    (384, 192, 384, 48, 128, 128),  # 5b
)


def googlenet_cifar(shape: Sequence[int], classes: int) -> nn.Sequential:
    """GoogLeNet (Szegedy et al., CVPR 2015, arXiv:1409.4842, table 1); a 3x3 convolution to 192 channels as its stem.

    Input (B, C, H, W), usually (B, 3, 32, 32), of at least 8x8 pixels; logits (B, classes).
    5,871,914 parameters for 3x32x32 and 10 classes. Raises ValueError for a smaller image.
    """
    c, _, _ = check_shape("googlenet_cifar", shape, at_least=8)
    layers = conv_bn_relu(c, 192, 3)
    in_channels = 192
    for row in _GOOGLENET:
        if row is None:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        else:
            layers.append(_Inception(in_channels, *row))
            in_channels = row[0] + row[2] + row[4] + row[5]
    return _with_head(layers, in_channels, classes)


class _Inception(nn.Module):
    """Szegedy et al., fig. 2(b): four branches, concatenated by channel."""

    def __init__(self, c: int, n1x1: int, reduce3: int, n3x3: int, reduce5: int, n5x5: int, pool: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*conv_bn_relu(c, n1x1, 1)),
                nn.Sequential(*conv_bn_relu(c, reduce3, 1), *conv_bn_relu(reduce3, n3x3, 3)),
                nn.Sequential(*conv_bn_relu(c, reduce5, 1), *conv_bn_relu(reduce5, n5x5, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *conv_bn_relu(c, pool, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, n1x1 + n3x3 + n5x5 + pool, H, W)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def mobilenet_cifar(shape: Sequence[int], classes: int) -> nn.Sequential:
    """MobileNet (Howard et al., arXiv:1704.04861, table 1): depthwise-separable convolutions; the stem has stride 1.

    Input (B, C, H, W), usually (B, 3, 32, 32), of at least 16x16 pixels; logits (B, classes).
    3,217,226 parameters for 3x32x32 and 10 classes. Raises ValueError for a smaller image.
    """
    in_channels, _, _ = check_shape("mobilenet_cifar", shape, at_least=16, instead="model=resnet20 takes smaller ones")
    layers = conv_bn_relu(in_channels, 32, 3)
    in_channels = 32
    for width in (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024):
        stride = 2 if width > in_channels > 32 else 1  # at each doubling of the width but the first
        layers += conv_bn_relu(in_channels, in_channels, 3, stride=stride, groups=in_channels)  # depthwise
        layers += conv_bn_relu(in_channels, width, 1)  # pointwise
        in_channels = width
    return _with_head(layers, in_channels, classes)


def _with_head(layers: list[nn.Module], channels: int, classes: int) -> nn.Sequential:
    """The convolutional ``layers``, initialised, then global average pooling and one linear layer."""
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    he_init_(net)
    return net
