"""Networks without BatchNorm, small enough for a CPU: mlp, lenet and the CIFAR-10 network of the SASGD papers."""

from collections.abc import Sequence

from torch import nn

from models.layers import Dropout, check_shape


def mlp(shape: Sequence[int], classes: int, *, hidden: Sequence[int] = (64,)) -> nn.Sequential:
    """Multi-layer perceptron: flatten, then a linear layer and a ReLU per width in ``hidden``, then a linear layer.

    Input (B, C, H, W) of any shape, logits (B, classes). ``hidden=[]`` is softmax regression: a convex problem.
    4,810 parameters for 1x8x8 and 10 classes; 50,890 for 1x28x28.
    Raises ValueError for a width that is not a positive integer.
    """
    c, h, w = check_shape("mlp", shape)
    if not all(isinstance(width, int) and width >= 1 for width in hidden):
        raise ValueError(
            f"model=mlp: model.hidden={list(hidden)} must be a list of positive integers, such as [64] or [256,128]"
        )
    widths = [c * h * w, *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in zip(widths, hidden, strict=False):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def lenet(shape: Sequence[int], classes: int) -> nn.Sequential:
    """LeNet-5 (LeCun, Bottou, Bengio, Haffner, Proc. IEEE 1998, fig. 2) with ReLU and max-pooling.

    The paper pads 28x28 digits to 32x32; here the first convolution pads by 2. Every feature map of the second
    convolution sees all of the first's (the paper's table I leaves some out). No dropout, no BatchNorm.

    Input (B, C, H, W) of at least 12x12 pixels, logits (B, classes). 61,706 parameters for 1x28x28 and 10 classes.
    Raises ValueError for a smaller image.
    """
    c, h, w = check_shape("lenet", shape, at_least=12)
    h, w = (h // 2 - 4) // 2, (w // 2 - 4) // 2  # after pool, unpadded 5x5 convolution, pool
    return nn.Sequential(
        nn.Conv2d(c, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * h * w, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def cifar_cnn(shape: Sequence[int], classes: int, *, dropout: float = 0.5) -> nn.Sequential:
    """The CIFAR-10 network of Cong, Bhardwaj and Feng (SASGD, ICPP 2017), layer by layer.

    Input (B, 3, 32, 32), logits (B, classes). 506,378 parameters for 10 classes.
    In train mode it needs a generator for ``dropout`` (`models.layers.set_dropout_generator`).
    Raises ValueError for any other input shape, and for a dropout probability outside [0, 1).
    """
    check_shape(
        "cifar_cnn",
        shape,
        channels=3,
        exactly=32,
        instead="choose dataset=cifar10, or model=mlp, which takes any shape",
    )
    if not 0 <= dropout < 1:
        raise ValueError(f"model=cifar_cnn: model.dropout={dropout} must be in [0, 1); 0 switches dropout off")
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 5), nn.ReLU(), nn.MaxPool2d(2), Dropout(dropout)),  # 32 -> 28 -> 14 pixels
        *(nn.Conv2d(64, 128, 3), nn.ReLU(), nn.MaxPool2d(2), Dropout(dropout)),  # -> 12 -> 6
        *(nn.Conv2d(128, 256, 3), nn.ReLU(), nn.MaxPool2d(2), Dropout(dropout)),  # -> 4 -> 2
        *(nn.Conv2d(256, 128, 2), nn.ReLU(), Dropout(dropout)),  # -> 1
        nn.Flatten(),
        nn.Linear(128, classes),
    )
