"""A small tree of real JPEG files in ImageNet's layout, read in this process and by loader processes."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from runner.data.files import DataError
from runner.data.imagenet import imagenet
from runner.data.sampling import Claims, GlobalBatches

CLASSES = ("n01440764", "n01443537", "n01484850")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """3 classes, 8 training and 4 test images each, of different sizes, one of them grey."""
    root = tmp_path_factory.mktemp("imagenet")
    stream = torch.Generator().manual_seed(0)
    for part, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                size = (40 + 5 * i, 48)
                pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=stream)
                pixels[..., label] = 255  # the class's colour
                image = Image.fromarray(pixels.numpy())
                (image.convert("L") if i == 1 else image).save(folder / f"{name}_{i}.JPEG", quality=95)
    return root


def open_tree(tree, processes=0, **options):
    return imagenet(root=str(tree), crop=32, resize=36, loader_processes=processes, **options)


def drawn(data, draws, seed=0):
    sampler = GlobalBatches(data.train_labels, seed, 2, 4)
    batches = data.batches(sampler, 1, seed)
    found = [batches(draw) for draw in draws]
    batches.close()
    batches.close()
    return found


def assert_equal(one, other):
    for (x, y), (u, v) in zip(one, other, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


def test_sizes_labels_and_colours(tree):
    data = open_tree(tree)
    assert (data.shape, data.classes, data.train_size, data.test_size) == ((3, 32, 32), 3, 24, 12)
    assert data.train_labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    (x, y), *rest = data.test_batches(20)
    assert not rest
    assert x.shape == (12, 3, 32, 32)
    assert x.dtype == torch.float32
    assert y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    colour = torch.tensor([i for i in range(12) if i % 4 != 1])  # all but the grey ones
    assert torch.equal(x[colour].mean((2, 3)).argmax(1), y[colour])


def test_parts_of_the_test_set(tree):
    data = open_tree(tree)
    parts = [batch for part in range(5) for batch in data.test_batches(2, part, 5)]
    ((x, y),) = data.test_batches(12)
    assert torch.equal(torch.cat([batch[0] for batch in parts]), x)
    assert torch.equal(torch.cat([batch[1] for batch in parts]), y)


def test_a_sample_looks_the_same_in_one_epoch_and_different_in_the_next(tree):
    data = open_tree(tree)
    narrow, wide = GlobalBatches(data.train_labels, 0, 8, 3), GlobalBatches(data.train_labels, 0, 1, 24)
    (x, y) = data.batches(wide, 0, seed=0)(0)
    for rank in range(8):
        assert torch.equal(data.batches(narrow, rank, seed=0)(0)[0], x[3 * rank : 3 * rank + 3])
    order = wide.indices(0, 0).argsort()
    later, _ = data.batches(wide, 0, seed=0)(1)
    later_order = wide.indices(0, 1).argsort()
    assert all(not torch.equal(a, b) for a, b in zip(x[order], later[later_order], strict=True))
    assert torch.equal(y[order], data.train_labels)


def test_the_global_generator_is_left_alone(tree):
    before = torch.get_rng_state()
    drawn(open_tree(tree), [0, 1])
    list(open_tree(tree).test_batches(4))
    assert torch.equal(before, torch.get_rng_state())


def test_without_augmentation_training_images_are_like_test_images(tree):
    data = open_tree(tree, augment=False)
    (x0, y0), (x1, y1) = drawn(data, [0, 1])
    assert_equal(drawn(data, [0, 1], seed=0), [(x0, y0), (x1, y1)])
    sampler = GlobalBatches(data.train_labels, 0, 1, 24)
    first, second = (data.batches(sampler, 0, seed)(0)[0] for seed in (0, 1))
    assert torch.equal(first, second)


def test_float64(tree):
    (x, _), *_ = open_tree(tree).to(dtype=torch.float64).test_batches(3)
    assert x.dtype == torch.float64


@pytest.mark.multiproc
def test_loader_processes_change_nothing_and_end(tree):
    """In sequence, out of sequence, and for evaluation; afterwards no process is left."""
    draws = [0, 1, 2, 3, 7, 8, 2]  # an epoch has 3
    alone, helped = open_tree(tree), open_tree(tree, processes=2)
    assert_equal(drawn(alone, draws), drawn(helped, draws))
    assert_equal(list(alone.test_batches(5)), list(helped.test_batches(5)))
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


@pytest.mark.multiproc
def test_batches_that_workers_take_from_one_another(tree):
    """In any order, by the same loader processes, none of which is left; the images are those of the draws."""
    alone, helped = open_tree(tree), open_tree(tree, processes=2)
    claims = Claims(GlobalBatches(alone.train_labels, 0, 2, 3), 1)
    read, expected = (data.batches(claims, 0, seed=0) for data in (helped, alone))
    pids = set()
    for claim in (0, 3, 4, 9, 2):
        assert_equal([read(claim)], [expected(claim)])
        pids |= {process.pid for process in multiprocessing.active_children()}
    assert len(pids) == 2
    read.close()
    assert not multiprocessing.active_children()


@pytest.mark.multiproc
def test_loader_processes_ignore_interrupts(tree):
    """Ctrl-C goes to the whole process group; the loaders go on until they are closed."""
    data = open_tree(tree, processes=1)
    batches = data.batches(GlobalBatches(data.train_labels, 0, 1, 4), 0, seed=0)
    batches(0)
    (loader,) = multiprocessing.active_children()
    os.kill(loader.pid, signal.SIGINT)
    for draw in range(1, 12):
        batches(draw)
    assert loader.is_alive()
    batches.close()


TRAINING_PROCESS = """
import multiprocessing, signal, sys
from runner.data.imagenet import imagenet
from runner.data.sampling import Claims, GlobalBatches
from runner.halting import SIGNALS

if __name__ == "__main__":
    SIGNALS.watch(signal.SIGUSR2, signal.SIGTERM)
    data = imagenet(root=sys.argv[1], crop=32, resize=36, loader_processes=1)
    batches = data.batches(GlobalBatches(data.train_labels, 0, 1, 4), 0, seed=0)
    batches(0)
    print(multiprocessing.active_children()[0].pid, flush=True)
    sys.stdin.readline()
    for draw in range(1, 20):
        batches(draw)
    print("has gone on", flush=True)
    batches.close()
"""


@pytest.fixture
def training(tree, tmp_path):
    """A process of its own, in a session of its own, with a loader whose id it has printed."""
    script = tmp_path / "train.py"
    script.write_text(TRAINING_PROCESS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    command = [sys.executable, script, tree]
    with subprocess.Popen(command, **pipes, env=environment, start_new_session=True) as process:
        yield process
        process.kill()


@pytest.mark.multiproc
def test_a_warning_to_all_processes_of_a_job_leaves_the_loaders_alone(training):
    training.stdout.readline()
    for number in (signal.SIGUSR2, signal.SIGTERM):
        os.killpg(training.pid, number)
    time.sleep(0.5)
    assert training.communicate("\n")[0] == "has gone on\n"
    assert training.returncode == 0


@pytest.mark.multiproc
def test_loader_processes_end_when_their_training_process_is_killed(training):
    loader = Path("/proc", training.stdout.readline().strip())
    assert loader.exists()
    training.kill()
    deadline = time.monotonic() + 10
    while loader.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not loader.exists()


def test_an_unreadable_image_is_named(tree, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(tree, root)
    broken = root / "val" / CLASSES[1] / f"{CLASSES[1]}_2.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"dataset\.root: .*{broken.name} cannot be read as an image"):
        list(open_tree(root).test_batches(4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root), "train: No such file"),
        (lambda root: shutil.rmtree(root / "val"), "val: No such file"),
        (lambda root: [shutil.rmtree(f) for f in (root / "train").iterdir()], "train has no class folders"),
        (lambda root: shutil.rmtree(root / "val" / CLASSES[2]), f"{CLASSES[2]} is a class in only one of"),
        (lambda root: [f.unlink() for f in (root / "train" / CLASSES[0]).iterdir()], f"{CLASSES[0]} has no image"),
    ],
    ids=["root", "val", "empty", "class", "images"],
)
def test_a_wrong_tree_is_refused_before_images_are_listed(tree, tmp_path, damage, message):
    root = tmp_path / "copy"
    shutil.copytree(tree, root)
    damage(root)
    with pytest.raises(DataError, match=rf"dataset\.root=.*{message}.*expected train/<class>/"):
        open_tree(root)


def test_a_class_without_images_is_refused_when_they_are_listed(tree, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(tree, root)
    for file in (root / "train" / CLASSES[1]).iterdir():
        file.unlink()
    with pytest.raises(DataError, match=rf"dataset\.root=.*{CLASSES[1]}"):
        _ = open_tree(root).train_size


@pytest.mark.parametrize(("key", "value"), [("crop", 0), ("resize", 31), ("loader_processes", -1)])
def test_numbers_out_of_range_are_refused(tree, key, value):
    with pytest.raises(ValueError, match=rf"dataset\.{key}={value}"):
        imagenet(root=str(tree), **{"crop": 32, "resize": 36, "loader_processes": 0, key: value})
