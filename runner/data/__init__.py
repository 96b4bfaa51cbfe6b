"""Data sets and which sample when. Nothing heavy is imported before a data set is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runner.build import build
from runner.data.files import found_whole

if TYPE_CHECKING:
    from runner.data.dataset import Dataset


def prepare(node: Mapping[str, Any]) -> Dataset:
    """The data set of conf/dataset, in the launching process: it may download, if dataset.download says so.

    What can be wrong with the data is found here, before anything is launched: small sets are read completely,
    of ImageNet the folders are looked at.

    Raises:
        ConfigError: missing, incomplete or corrupt data, or an option that is wrong.
    """
    return build(node, "dataset")  # type: ignore[no-any-return]


def load(node: Mapping[str, Any]) -> Dataset:
    """As `prepare`, on a rank: never downloads, and where it can reads no more than the samples asked for."""
    token = found_whole.set(True)
    try:
        return prepare({**node, "download": False} if "download" in node else node)
    finally:
        found_whole.reset(token)
