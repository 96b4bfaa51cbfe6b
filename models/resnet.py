"""Residual networks: He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385.

All take two options of initialisation (Goyal et al., arXiv:1706.02677, section 5.1), which the ImageNet networks
switch on, as SGP's authors did: ``zero_init_last_gamma`` sets the gamma of each residual block's last BatchNorm to 0,
so that every block starts as the identity; ``fc_std`` draws the last layer's weight from N(0, fc_std^2) and sets its
bias to 0 (None keeps torch's default).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from models.layers import check_shape, conv_bn_relu, he_init_


def resnet20(
    shape: Sequence[int], classes: int, *, zero_init_last_gamma: bool = False, fc_std: float | None = None
) -> nn.Sequential:
    """ResNet-20 for CIFAR (section 4.2: n = 3, parameter-free shortcuts "A").

    Input (B, C, H, W), usually (B, 3, 32, 32), of at least 8x8 pixels; logits (B, classes).
    269,722 parameters for 3x32x32 and 10 classes (the paper's 0.27M).
    Raises ValueError for a smaller image, or unless fc_std > 0.
    """
    c, _, _ = check_shape("resnet20", shape, at_least=8)
    blocks: list[nn.Module] = []
    for in_channels, width in ((16, 16), (16, 32), (32, 64)):
        first = BasicBlock(in_channels, width, *((2, _ShortcutA(width)) if width > in_channels else ()))
        blocks += [first, BasicBlock(width, width), BasicBlock(width, width)]
    fc = nn.Linear(64, classes)
    net = nn.Sequential(*conv_bn_relu(c, 16, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), fc)
    he_init_(net)
    _init_options_("resnet20", net, fc, zero_init_last_gamma, fc_std)
    return net


def resnet18_cifar(
    shape: Sequence[int], classes: int, *, zero_init_last_gamma: bool = False, fc_std: float | None = None
) -> ResNet:
    """ResNet-18 (table 1) with a stem for 32x32: one 3x3 convolution of stride 1, no max-pooling.

    Input (B, C, H, W), usually (B, 3, 32, 32), of at least 8x8 pixels; logits (B, classes).
    11,173,962 parameters for 3x32x32 and 10 classes.
    Raises ValueError for a smaller image, or unless fc_std > 0.
    """
    c, _, _ = check_shape("resnet18_cifar", shape, at_least=8)
    net = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)
    net.conv1 = nn.Conv2d(c, 64, 3, padding=1, bias=False)
    he_init_(net.conv1)
    net.maxpool = nn.Identity()
    _init_options_("resnet18_cifar", net, net.fc, zero_init_last_gamma, fc_std)
    return net


def resnet18(
    shape: Sequence[int], classes: int, *, zero_init_last_gamma: bool = True, fc_std: float | None = 0.01
) -> ResNet:
    """ResNet-18 for ImageNet (table 1), torchvision's, with random weights.

    Input (B, 3, H, W), usually (B, 3, 224, 224), of at least 32x32 pixels; logits (B, classes).
    11,689,512 parameters for 1,000 classes.
    Raises ValueError for a smaller image, for other than 3 channels, or unless fc_std > 0.
    """
    return _imagenet_resnet("resnet18", BasicBlock, [2, 2, 2, 2], shape, classes, zero_init_last_gamma, fc_std)


def resnet50(
    shape: Sequence[int], classes: int, *, zero_init_last_gamma: bool = True, fc_std: float | None = 0.01
) -> ResNet:
    """ResNet-50 for ImageNet (table 1), torchvision's, with random weights.

    torchvision puts a bottleneck's stride into its 3x3 convolution ("v1.5"), the paper into the first 1x1.

    Input (B, 3, H, W), usually (B, 3, 224, 224), of at least 32x32 pixels; logits (B, classes).
    25,557,032 parameters for 1,000 classes.
    Raises ValueError for a smaller image, for other than 3 channels, or unless fc_std > 0.
    """
    return _imagenet_resnet("resnet50", Bottleneck, [3, 4, 6, 3], shape, classes, zero_init_last_gamma, fc_std)


def _imagenet_resnet(
    name: str,
    block: type[BasicBlock | Bottleneck],
    depths: list[int],
    shape: Sequence[int],
    classes: int,
    zero_init_last_gamma: bool,
    fc_std: float | None,
) -> ResNet:
    """The ResNet of torchvision, which already draws its convolutions by He's rule."""
    check_shape(
        name, shape, channels=3, at_least=32, instead="model=resnet18_cifar and resnet20 are for smaller or grey ones"
    )
    net = ResNet(block, depths, num_classes=classes)
    _init_options_(name, net, net.fc, zero_init_last_gamma, fc_std)
    return net


class _ShortcutA(nn.Module):
    """Identity of stride 2, with extra channels of zeros up to ``width`` (He et al., section 3.3, option A)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, ceil(H/2), ceil(W/2))."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.width - x.shape[1]))


def _init_options_(name: str, net: nn.Module, fc: nn.Linear, zero_init_last_gamma: bool, fc_std: float | None) -> None:
    """Apply the two options of this file to ``net``, in place."""
    if fc_std is not None and not fc_std > 0:
        raise ValueError(
            f"model={name}: model.fc_std={fc_std} must be positive, such as 0.01, or null for torch's default"
        )
    if zero_init_last_gamma:
        for block in net.modules():
            if isinstance(block, BasicBlock | Bottleneck):
                nn.init.zeros_((block.bn2 if isinstance(block, BasicBlock) else block.bn3).weight)
    if fc_std is not None:
        nn.init.normal_(fc.weight, std=fc_std)
        nn.init.zeros_(fc.bias)
