"""The networks: sizes, shapes, initialisation, dropout, the files of conf/model, and what is refused."""

import copy
import inspect
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torchvision.models.resnet import BasicBlock, Bottleneck

import models
from models.layers import Dropout, check_shape, dropout_layers, he_init_, set_dropout_generator

CONF = Path(__file__).parents[2] / "conf" / "model"

# model: usual input shape, classes, parameters
USUAL = {
    "mlp": ((1, 8, 8), 10, 64 * 64 + 64 + 64 * 10 + 10),
    "lenet": ((1, 28, 28), 10, 61_706),
    "cifar_cnn": ((3, 32, 32), 10, 506_378),  # PAPERS: SASGD's sister paper
    "resnet20": ((3, 32, 32), 10, 269_722),  # He et al., table 6: 0.27M
    "resnet18_cifar": ((3, 32, 32), 10, 11_173_962),
    "vgg19_cifar": ((3, 32, 32), 10, 20_035_018),
    "googlenet_cifar": ((3, 32, 32), 10, 5_871_914),
    "mobilenet_cifar": ((3, 32, 32), 10, 3_217_226),
    "resnet18": ((3, 224, 224), 1000, 11_689_512),
    "resnet50": ((3, 224, 224), 1000, 25_557_032),
}
RESNETS = ("resnet20", "resnet18_cifar", "resnet18", "resnet50")


def build(name: str, shape=None, classes=None, seed: int = 0, **options) -> nn.Module:
    """The named model for its usual input unless told otherwise, drawn from ``seed``."""
    usual_shape, usual_classes, _ = USUAL[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(models, name)(shape=shape or usual_shape, classes=classes or usual_classes, **options)


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# ---------------------------------------------------------------------------------------------------- all of them


def test_the_table_lists_every_model():
    assert sorted(USUAL) == sorted(models.__all__)


@pytest.mark.parametrize("name", USUAL)
def test_parameter_count_is_exact_and_stands_in_the_docstring(name):
    shape, classes, count = USUAL[name]
    with torch.device("meta"):  # counts, and checks the arguments, without memory
        model = getattr(models, name)(shape=shape, classes=classes)
    assert parameters(model) == count
    assert f"{count:,} parameters" in inspect.getdoc(getattr(models, name))


@pytest.mark.parametrize("name", USUAL)
def test_forward_and_backward(name):
    shape, classes, _ = USUAL[name]
    shape = (3, 64, 64) if shape == (3, 224, 224) else shape
    model = build(name, shape)
    set_dropout_generator(model, torch.Generator().manual_seed(0))
    global_state = torch.get_rng_state()
    logits = model(images(2, *shape))
    assert logits.shape == (2, classes)
    assert logits.dtype == torch.float32
    cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), global_state), "a forward pass drew from torch's global generator"
    assert not any(isinstance(m, nn.modules.dropout._DropoutNd) for m in model.modules())


@pytest.mark.parametrize("name", ["mlp", "lenet", "cifar_cnn", "resnet20", "mobilenet_cifar"])
def test_one_seed_gives_the_same_bytes_and_another_does_not(name):
    same, again, other = (build(name, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(same[key], again[key]) for key in same)
    assert not all(torch.equal(same[key], other[key]) for key in same)


@pytest.mark.parametrize("name", ["lenet", "cifar_cnn", "resnet20", "googlenet_cifar", "mobilenet_cifar"])
def test_channels_last_gives_the_same_logits(name):
    model, x = build(name).eval().double(), images(2, *USUAL[name][0]).double()
    expected = model(x)
    got = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", (2, 1, 5)),
        ("lenet", (1, 12, 12)),
        ("lenet", (3, 32, 20)),
        ("resnet20", (1, 8, 8)),
        ("resnet20", (1, 28, 28)),
        ("resnet18_cifar", (1, 8, 8)),
        ("vgg19_cifar", (1, 32, 33)),
        ("googlenet_cifar", (1, 8, 8)),
        ("mobilenet_cifar", (1, 16, 16)),
        ("resnet18", (3, 32, 32)),
    ],
)
def test_other_shapes_and_the_smallest(name, shape):
    assert build(name, shape, classes=7)(images(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(("name", "shape"), [("mlp", (1, 8, 8)), ("lenet", (1, 28, 28))])
def test_vmap_of_per_sample_gradients_equals_the_loop(name, shape):
    model = build(name).double()
    weights = {key: p.detach() for key, p in model.named_parameters()}
    x, y = images(4, *shape).double(), torch.tensor([1, 0, 9, 3])

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, weights, (image[None],)), label[None])

    batched = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, y)
    for sample in range(len(x)):
        model.zero_grad()
        cross_entropy(model(x[sample : sample + 1]), y[sample : sample + 1]).backward()
        for key, p in model.named_parameters():
            torch.testing.assert_close(batched[key][sample], p.grad, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------------------------------------- architecture


@pytest.mark.parametrize(("hidden", "count"), [([], 650), ([32], 64 * 32 + 32 + 330), ([32, 16], 2080 + 528 + 170)])
def test_mlp_hidden_widths(hidden, count):
    model = build("mlp", hidden=hidden)
    assert parameters(model) == count
    assert sum(isinstance(layer, nn.ReLU) for layer in model) == len(hidden)


def test_cifar_cnn_layer_by_layer():
    layers = [
        (layer.in_channels, layer.out_channels, *layer.kernel_size, *layer.stride, *layer.padding)
        if isinstance(layer, nn.Conv2d)
        else (layer.in_features, layer.out_features)
        if isinstance(layer, nn.Linear)
        else type(layer).__name__
        for layer in build("cifar_cnn")
    ]
    rest, pooled = ["ReLU", "Dropout"], ["ReLU", "MaxPool2d", "Dropout"]
    assert layers == [
        *((3, 64, 5, 5, 1, 1, 0, 0), *pooled),
        *((64, 128, 3, 3, 1, 1, 0, 0), *pooled),
        *((128, 256, 3, 3, 1, 1, 0, 0), *pooled),
        *((256, 128, 2, 2, 1, 1, 0, 0), *rest),
        *("Flatten", (128, 10)),
    ]
    assert [layer.p for layer in dropout_layers(build("cifar_cnn"))] == [0.5] * 4
    assert [layer.p for layer in dropout_layers(build("cifar_cnn", dropout=0.25))] == [0.25] * 4


def test_resnet20_has_20_layers_and_parameter_free_shortcuts():
    model = build("resnet20")
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == 20
    shortcuts = [m.downsample for m in model.modules() if isinstance(m, BasicBlock) and m.downsample is not None]
    assert [parameters(shortcut) for shortcut in shortcuts] == [0, 0]
    x = images(2, 16, 6, 6)
    expected = torch.cat([x[:, :, ::2, ::2], torch.zeros(2, 16, 3, 3)], dim=1)
    assert torch.equal(shortcuts[0](x), expected)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("resnet20", 8), ("resnet18_cifar", 4), ("vgg19_cifar", 1), ("googlenet_cifar", 8), ("mobilenet_cifar", 2)],
)
def test_cifar_strides_by_the_size_before_the_global_pool(name, pixels):
    with torch.device("meta"):
        model = build(name).eval()
        seen: list[torch.Size] = []
        pool = next(m for m in model.modules() if isinstance(m, nn.AdaptiveAvgPool2d))
        pool.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
        model(torch.empty(1, 3, 32, 32))
    assert seen[0][2:] == (pixels, pixels)


# ---------------------------------------------------------------------------------------------------- initialisation


def test_he_init_counts_a_groups_own_outputs():
    depthwise = nn.Conv2d(512, 512, 3, groups=512)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        he_init_(depthwise)
    assert depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)


def last_gammas(model: nn.Module) -> list[Tensor]:
    """Gamma of the last BatchNorm of each residual block."""
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock | Bottleneck)]
    return [(b.bn2 if isinstance(b, BasicBlock) else b.bn3).weight for b in blocks]


@pytest.mark.parametrize("name", RESNETS)
def test_residual_init_options(name):
    on = build(name, zero_init_last_gamma=True, fc_std=0.01)
    off = build(name, zero_init_last_gamma=False, fc_std=None)
    count = {"resnet20": 9, "resnet50": 16}.get(name, 8)
    assert len(last_gammas(on)) == len(last_gammas(off)) == count
    assert all(gamma.eq(0).all() for gamma in last_gammas(on))
    assert all(gamma.eq(1).all() for gamma in last_gammas(off))
    zeroed = sum(m.weight.eq(0).all().item() for m in on.modules() if isinstance(m, nn.BatchNorm2d))
    assert zeroed == count, "only the last gammas are zero"

    fc = [next(m for m in net.modules() if isinstance(m, nn.Linear)) for net in (on, off)]
    assert fc[0].bias.eq(0).all()
    assert fc[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert fc[1].bias.ne(0).any()


@pytest.mark.parametrize("name", RESNETS)
def test_sgp_initialises_the_imagenet_networks_only(name):
    defaults = inspect.signature(getattr(models, name)).parameters
    sgp = name in ("resnet18", "resnet50")
    assert defaults["zero_init_last_gamma"].default is sgp
    assert defaults["fc_std"].default == (0.01 if sgp else None)


def test_with_zero_gammas_a_block_is_the_relu_of_its_shortcut():
    block = next(m for m in build("resnet20", zero_init_last_gamma=True).modules() if isinstance(m, BasicBlock))
    x = images(2, 16, 8, 8).relu()
    assert torch.equal(block(x), x)


# ---------------------------------------------------------------------------------------------------- dropout


def dropped(x: Tensor, p: float, seed: int) -> Tensor:
    layer = Dropout(p)
    set_dropout_generator(layer, torch.Generator().manual_seed(seed))
    return layer(x)


@settings(max_examples=25, deadline=None)
@given(p=st.floats(0, 0.95), seed=st.integers(0, 2**32))
def test_dropout_zeroes_or_scales_and_repeats_with_the_seed(p, seed):
    x = torch.ones(40, 50)
    y = dropped(x, p, seed)
    kept = y != 0
    torch.testing.assert_close(y[kept], torch.full((int(kept.sum()),), 1 / (1 - p)))
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.06)  # more than 5 standard deviations
    assert torch.equal(y, dropped(x, p, seed))


def test_dropout_seeds_differ_and_layers_draw_one_after_another():
    x = torch.ones(100)
    assert not torch.equal(dropped(x, 0.5, 0), dropped(x, 0.5, 1))
    two = nn.ModuleList([Dropout(0.5), Dropout(0.5)])
    set_dropout_generator(two, torch.Generator().manual_seed(0))
    assert not torch.equal(two[0](x), two[1](x))


def test_dropout_drops_the_same_elements_in_every_dtype_and_memory_format():
    x = torch.ones(2, 3, 4, 5)
    expected = dropped(x, 0.3, seed=7)
    assert torch.equal(dropped(x.double(), 0.3, seed=7) != 0, expected != 0)
    assert dropped(x.bfloat16(), 0.3, seed=7).dtype == torch.bfloat16
    last = dropped(x.to(memory_format=torch.channels_last), 0.3, seed=7)
    assert torch.equal(last, expected)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_dropout_masks_the_gradient_too():
    x = torch.ones(50, requires_grad=True)
    y = dropped(x, 0.4, seed=0)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_is_the_identity_in_eval_mode_and_at_zero():
    x = images(5)
    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0)(x) is x


def test_dropout_without_a_generator_says_what_to_do():
    model = build("cifar_cnn")
    with pytest.raises(RuntimeError, match=re.escape("set_dropout_generator(model, generator)")):
        model(images(1, 3, 32, 32))
    set_dropout_generator(model, torch.Generator())
    model(images(1, 3, 32, 32))
    set_dropout_generator(model, None)
    with pytest.raises(RuntimeError, match="no generator"):
        model(images(1, 3, 32, 32))


def test_a_network_with_dropout_repeats_a_draw_and_can_be_copied():
    model, x = build("cifar_cnn"), images(2, 3, 32, 32)
    layers = dropout_layers(model)
    outputs = []
    for net in (model, model, copy.deepcopy(model)):
        set_dropout_generator(net, torch.Generator().manual_seed(5))
        outputs.append(net(x))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert len(layers) == 4
    assert not any(dropout_layers(build(name)) for name in ("mlp", "lenet", "resnet20"))


# ---------------------------------------------------------------------------------------------------- conf/model


def test_every_model_has_its_file():
    assert sorted(path.stem for path in CONF.glob("*.yaml")) == sorted(models.__all__)


@pytest.mark.parametrize("name", USUAL)
def test_a_file_names_its_builder_and_all_its_options_at_their_defaults(name):
    options = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert options.pop("_target_") == f"models.{name}"
    defaults = inspect.signature(getattr(models, name)).parameters
    expected = {key: p.default for key, p in defaults.items() if key not in ("shape", "classes")}
    assert options == {key: list(value) if isinstance(value, tuple) else value for key, value in expected.items()}
    with torch.device("meta"):
        build(name, **options)


@pytest.mark.parametrize("name", USUAL)
def test_a_file_explains_itself(name):
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert all("  # " in line for line in lines[2:]), "each option has a comment on its line"
    assert max(map(len, lines)) <= 120


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "shape", "allowed"),
    [
        ("lenet", (1, 8, 8), "at least 12x12"),
        ("cifar_cnn", (1, 28, 28), "RGB images of 32x32"),
        ("cifar_cnn", (1, 32, 32), "RGB images of 32x32"),
        ("cifar_cnn", (3, 32, 33), "RGB images of 32x32"),
        ("resnet20", (3, 7, 8), "at least 8x8"),
        ("resnet18_cifar", (3, 8, 7), "at least 8x8"),
        ("vgg19_cifar", (1, 28, 28), "at least 32x32"),
        ("googlenet_cifar", (3, 4, 4), "at least 8x8"),
        ("mobilenet_cifar", (1, 8, 8), "at least 16x16"),
        ("resnet18", (1, 64, 64), "RGB images of at least 32x32"),
        ("resnet50", (3, 28, 28), "RGB images of at least 32x32"),
    ],
)
def test_a_wrong_image_shape_is_refused(name, shape, allowed):
    with pytest.raises(ValueError, match=f"^model={name} takes .*{allowed}") as error:
        build(name, shape)
    assert "x".join(map(str, shape)) in str(error.value)
    assert re.search(r"; .*model=\w+", str(error.value)), "says what to choose instead"


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 0), (1, 1, 8, 8)])
def test_what_is_no_image_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"^model=mlp: shape=.*\(channels, height, width\)"):
        build("mlp", shape)
    assert check_shape("mlp", [1, 8, 8]) == (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("mlp", "hidden", [64, 0]),
        ("mlp", "hidden", [1.5]),
        ("cifar_cnn", "dropout", 1.0),
        ("cifar_cnn", "dropout", -0.1),
        ("resnet20", "fc_std", 0.0),
        ("resnet18_cifar", "fc_std", -1.0),
    ],
)
def test_a_wrong_option_is_refused(name, option, value):
    with pytest.raises(ValueError, match=re.escape(f"model={name}: model.{option}={value} must be")):
        build(name, **{option: value})


def test_dropout_refuses_a_probability_of_one():
    with pytest.raises(ValueError, match=r"in \[0, 1\), not 1"):
        Dropout(1)
