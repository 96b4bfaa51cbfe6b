"""Networks, each built by ``<name>(shape=(C, H, W), classes=K, **options) -> nn.Module``.

A network takes normalised float32 images (B, C, H, W), in either memory format, and returns logits (B, K). Its weights
are drawn from torch's global generator at construction, so the caller seeds (and forks) it; nothing is drawn from it
later: dropout uses `models.layers.set_dropout_generator`. A model's file in conf/model names its builder and options.
Under ``torch.device("meta")`` a builder checks its arguments and counts its parameters without allocating them.
"""

from models.cifar import googlenet_cifar, mobilenet_cifar, vgg19_cifar
from models.resnet import resnet18, resnet18_cifar, resnet20, resnet50
from models.small import cifar_cnn, lenet, mlp

__all__ = [
    "cifar_cnn",
    "googlenet_cifar",
    "lenet",
    "mlp",
    "mobilenet_cifar",
    "resnet18",
    "resnet18_cifar",
    "resnet20",
    "resnet50",
    "vgg19_cifar",
]
