"""Configurations for scripts that run parts of the project themselves."""

from __future__ import annotations

import tempfile

from runner.composing import compose
from runner.config import Config
from runner.prepare import resolve


def configure(*arguments: str) -> Config:
    """A resolved configuration, as `run-experiment` would make it of these arguments.

    Raises:
        ConfigError: it cannot be.
    """
    with tempfile.TemporaryDirectory() as folder:
        [(config, _)] = compose([*arguments, f"results_dir={folder}"])
        return resolve(config)
