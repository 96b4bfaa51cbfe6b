"""Fashion-MNIST and CIFAR from files: every layout, and everything that can be wrong with them.

The files are as large as the real ones, because the counts are checked; most of them are zeros, on disk too.
"""

import gzip
import io
import os
import pickle
import shutil
import struct

import numpy as np
import pytest
import torch

from runner.build import ConfigError
from runner.composing import compose
from runner.data import load, prepare
from runner.data.cifar import BINARY, PYTHON, cifar10, cifar100
from runner.data.fashion_mnist import DEBIAN, FILES, UNPACKED, fashion_mnist
from runner.data.files import DataError


def idx(shape, first):
    """An idx file that starts with the bytes `first` and goes on with zeros."""
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    return header + first + bytes(int(np.prod(shape)) - len(first))


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """Four gzipped files; training image 0 is all 255, and its label 9."""
    folder = tmp_path_factory.mktemp("fashion")
    shapes = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))
    for file, shape in zip(FILES, shapes, strict=True):
        content = idx(shape, b"\xff" * 784 if len(shape) == 3 else b"\x09\x03")
        (folder / file).write_bytes(gzip.compress(content, compresslevel=1))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def broken(fashion, tmp_path):
    """A copy to break."""
    for file in FILES:
        os.link(fashion / file, tmp_path / file)
    return tmp_path


def replace(path, content):
    path.unlink()  # it is a link
    path.write_bytes(content)


def check_fashion(data):
    assert (data.shape, data.classes, data.train_size, data.test_size) == ((1, 28, 28), 10, 60_000, 10_000)
    x, y = data.train_batch(torch.tensor([0, 1, 2]), seed=0, epoch=0)
    assert y.tolist() == [9, 3, 0]
    torch.testing.assert_close(x[0], torch.full((1, 28, 28), (1 - 0.2860) / 0.3530))
    torch.testing.assert_close(x[1], torch.full((1, 28, 28), -0.2860 / 0.3530))


def test_fashion_mnist_from_root(fashion):
    check_fashion(fashion_mnist(root=str(fashion)))


def test_of_fashion_mnist_a_rank_reads_what_it_wants(broken):
    def on_rank(**wanted):
        return load({"_target_": "runner.data.fashion_mnist.fashion_mnist", "root": str(broken), **wanted})

    content = (broken / FILES[0]).read_bytes()
    whole = fashion_mnist(root=str(broken), train_samples=300, test_samples=20)
    replace(broken / FILES[0], content[: len(content) // 2])
    part = on_rank(train_samples=300, test_samples=20)
    assert (part.train_size, part.test_size) == (300, 20)
    for ours, theirs in zip(
        part.train_batch(torch.arange(300), seed=0, epoch=0),
        whole.train_batch(torch.arange(300), seed=0, epoch=0),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    with pytest.raises(DataError, match=f"{FILES[0]} is corrupt"):
        fashion_mnist(root=str(broken), train_samples=300)
    with pytest.raises(ConfigError, match=f"{FILES[0]} is corrupt"):
        on_rank()
    with pytest.raises(ConfigError, match=r"dataset\.test_samples=10001: must be between 1 and 10000"):
        on_rank(train_samples=300, test_samples=10_001)


def test_fashion_mnist_in_torchvision_layout_unpacked(fashion, tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for packed, unpacked in zip(FILES, UNPACKED, strict=True):
        (raw / unpacked).write_bytes(gzip.decompress((fashion / packed).read_bytes()))
    check_fashion(fashion_mnist(root=str(tmp_path)))
    shutil.rmtree(raw)


def test_a_missing_root_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"dataset\.root=.*nowhere: no fashion_mnist in any of .*raw.*Expected there: train-"
    ):
        fashion_mnist(root=str(tmp_path / "nowhere"))


def test_the_error_names_the_remedy(tmp_path):
    node = {"_target_": "runner.data.fashion_mnist.fashion_mnist", "root": str(tmp_path), "download": False}
    for function in (prepare, load):
        with pytest.raises(ConfigError, match=r"apt-get install dataset-fashion-mnist.*dataset\.download=true"):
            function(node)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar100", "imagenet", "digits", "synthetic"])
def test_a_rank_takes_every_option_of_a_data_set(name, tmp_path):
    root = () if name in ("digits", "synthetic") else (f"dataset.root={tmp_path}",)
    [(config, _)] = compose([f"dataset={name}", *root])
    if root:
        with pytest.raises(ConfigError, match=rf"dataset.root.*{tmp_path}"):
            load(config["dataset"])
    else:
        assert load(config["dataset"]).train_size > 0


@pytest.mark.parametrize("file", FILES)
def test_an_incomplete_root_is_refused(broken, file):
    (broken / file).unlink()
    with pytest.raises(DataError, match=rf"fashion_mnist is incomplete: .* lacks {file}"):
        fashion_mnist(root=str(broken))


def truncated_gzip(content):
    return content[: len(content) // 2]


def not_gzip(content):
    return b"<html>404</html>"


def flipped_bytes(content):
    half = len(content) // 2
    return content[:half] + bytes(b ^ 0xFF for b in content[half : half + 4]) + content[half + 4 :]


def wrong_magic(content):
    return gzip.compress(b"\0\0\x0d\x03" + gzip.decompress(content)[4:], compresslevel=1)


def wrong_count(content):
    return gzip.compress(idx((10,), b""), compresslevel=1)


def truncated_data(content):
    return gzip.compress(gzip.decompress(content)[:-1], compresslevel=1)


def nothing(content):
    return b""


@pytest.mark.parametrize("file", FILES[2:])
@pytest.mark.parametrize(
    "damage", [truncated_gzip, not_gzip, flipped_bytes, wrong_magic, wrong_count, truncated_data, nothing]
)
def test_a_corrupt_file_is_refused(broken, file, damage):
    replace(broken / file, damage((broken / file).read_bytes()))
    with pytest.raises(DataError, match=rf"dataset\.root: .*{file} is corrupt \(.+\); delete it and run `apt-get"):
        fashion_mnist(root=str(broken))


def test_a_label_out_of_range_is_refused(broken):
    replace(broken / FILES[3], gzip.compress(idx((10_000,), b"\x0a"), compresslevel=1))
    with pytest.raises(DataError, match="label 10 of"):
        fashion_mnist(root=str(broken))


@pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_real_fashion_mnist():
    data = fashion_mnist()
    assert data.train_labels.bincount().tolist() == [6000] * 10
    x, _ = data.train_batch(torch.arange(60_000), seed=0, epoch=0)
    assert abs(x.mean()) < 1e-3
    assert abs(x.std() - 1) < 1e-3
    _, y = data.test_batch(slice(None))
    assert y.bincount().tolist() == [1000] * 10


CIFAR = {"cifar10": (cifar10, 10_000, 9), "cifar100": (cifar100, 50_000, 99)}
PIXELS = np.arange(3072, dtype=np.uint8)


class Python2Pickler(pickle._Pickler):
    """Writes byte strings and text as Python 2's cPickle did, protocol 2: the authors' files were made that way."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode()
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, value, name=None):
        names = {"_reconstruct": "numpy.core.multiarray", "ndarray": "numpy", "dtype": "numpy"}
        self.write(pickle.GLOBAL + f"{names[value.__name__]}\n{value.__name__}\n".encode())
        self.memoize(value)

    dispatch[type] = dispatch[type(len)] = dispatch[type(replace)] = save_global


def write_binary(path, name, count, labels):
    """Record 0 holds PIXELS; the rest is zeros that take no room on disk."""
    head = bytes(labels[:1]) if name == "cifar10" else bytes([7, labels[0]])
    with path.open("wb") as file:
        file.write(head + PIXELS.tobytes())
        file.truncate(count * (len(head) + 3072))


def write_python(path, name, count, labels):
    images = np.zeros((count, 3072), np.uint8)
    images[0] = PIXELS
    content = {"data": images, ("labels" if name == "cifar10" else "fine_labels"): labels + [0] * (count - len(labels))}
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump({"batch_label": "a batch", **content})


def write(root, name, version, last_label=None):
    _, count, top_label = CIFAR[name]
    writer = write_binary if version is BINARY else write_python
    folder = root / version[name].folder
    folder.mkdir(parents=True, exist_ok=True)
    for file in version[name].files:
        testing = file is version[name].files[-1]
        label = last_label if testing and last_label is not None else top_label
        writer(folder / file, name, 10_000 if testing else count, [label])
    return folder


@pytest.mark.parametrize("version", [BINARY, PYTHON], ids=["binary", "python"])
@pytest.mark.parametrize("name", CIFAR)
def test_cifar(name, version, tmp_path):
    function, count, top_label = CIFAR[name]
    folder = write(tmp_path, name, version)
    for root in (tmp_path, folder):
        data = function(root=str(root), augment=False).to(dtype=torch.float64)
        assert (data.shape, data.classes) == ((3, 32, 32), top_label + 1)
        assert (data.train_size, data.test_size) == (50_000, 10_000)
        x, y = data.test_batch(slice(0, 2))
        assert y.tolist() == [top_label, 0]
        mean, std = {"cifar10": (0.4914, 0.2470), "cifar100": (0.5071, 0.2673)}[name]
        red = torch.from_numpy(PIXELS[:1024].copy()).view(32, 32)
        torch.testing.assert_close(x[0, 0] * std + mean, red / 255.0, check_dtype=False)
        assert data.train_labels[::count].tolist() == [top_label] * (50_000 // count)
        assert data.train_labels.sum() == top_label * (50_000 // count)
    shutil.rmtree(tmp_path)


def test_cifar_prefers_the_binary_version(tmp_path):
    write(tmp_path, "cifar100", BINARY, last_label=1)
    write(tmp_path, "cifar100", PYTHON, last_label=2)
    data = cifar100(root=str(tmp_path))
    assert data.test_batch(slice(0, 1))[1].tolist() == [1]
    (tmp_path / BINARY["cifar100"].folder / "train.bin").unlink()
    assert cifar100(root=str(tmp_path)).test_batch(slice(0, 1))[1].tolist() == [2]  # the complete one
    shutil.rmtree(tmp_path)


def test_the_default_root(tmp_path, monkeypatch):
    """$DISTSGD_DATA, and without it the folder `data` below the current one."""
    folder = write(tmp_path / "data", "cifar100", BINARY)
    monkeypatch.setenv("DISTSGD_DATA", str(folder))
    assert cifar100(test_samples=1).test_size == 1
    monkeypatch.delenv("DISTSGD_DATA")
    with pytest.raises(DataError, match=r"dataset\.root=null: no cifar100 in any of"):
        cifar100()
    monkeypatch.chdir(tmp_path)
    assert cifar100(train_samples=1).train_size == 1
    shutil.rmtree(folder)


def test_cifar_missing_and_incomplete(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.root=.*no cifar10 in any of .*cifar-10-batches-py.*Expected there"):
        cifar10(root=str(tmp_path))
    folder = write(tmp_path, "cifar10", BINARY)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"cifar10 is incomplete: .*cifar-10-batches-bin lacks data_batch_3\.bin"):
        cifar10(root=str(tmp_path))


def test_cifar_truncated_and_mislabelled(tmp_path):
    folder = write(tmp_path, "cifar10", BINARY, last_label=10)
    with pytest.raises(DataError, match=r"test_batch\.bin is corrupt \(labels 0\.\.10 instead of 0\.\.9\)"):
        cifar10(root=str(tmp_path))
    os.truncate(folder / "data_batch_2.bin", 9_999 * 3073)
    with pytest.raises(DataError, match=r"data_batch_2\.bin is corrupt \(30726927 bytes instead of 30730000\)"):
        cifar10(root=str(tmp_path))


class Attack:
    """Unpickled without restriction, this would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda _: b"", r"train is corrupt \(EOFError"),
        (lambda _: b"not a pickle", "train is corrupt"),
        (lambda _: pickle.dumps([1, 2]), r"train is corrupt \(TypeError"),
        (lambda _: pickle.dumps({"data": [0], "fine_labels": [0]}), "train is corrupt .*not 50000 of each"),
        (lambda root: pickle.dumps(Attack(str(root / "owned"))), "a pickle asks for posix.mkdir"),
    ],
    ids=["empty", "text", "other", "shape", "attack"],
)
def test_cifar_pickles_are_read_with_restriction(content, message, tmp_path):
    for file in PYTHON["cifar100"].files:
        (tmp_path / file).write_bytes(content(tmp_path))
    with pytest.raises(DataError, match=message):
        cifar100(root=str(tmp_path))
    assert not (tmp_path / "owned").exists()


def test_the_imitated_pickles_look_like_the_real_ones():
    """The names that the authors' files hold, and not those that Python 3 would write."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump({"data": PIXELS, "labels": [1]})
    assert b"numpy.core.multiarray\n_reconstruct" in file.getvalue()
    assert b"_codecs" not in file.getvalue()
