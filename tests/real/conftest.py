"""The real pair, trained once into a cache directory; tests are skipped where its weights are missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from purify_hooks.evaluation.testbed.real.cache import directory, made
from purify_hooks.evaluation.testbed.real.original import require_original
from purify_hooks.local.source import LocalSource
from purify_plugins import ConfigError
from tests.real.pair import Loaded, RealPair

QUICK = "test_recipe.py"
"""The file here that needs no real weights."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything on the real pair is slow, and the first test may train it."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.path.name != QUICK:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def real_pair() -> RealPair:
    from filelock import FileLock  # huggingface_hub's own requirement

    try:
        require_original()
    except ConfigError as error:
        pytest.skip(str(error))
    home = directory()
    home.parent.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)  # one is enough for the toys, and what the tests are given
    try:
        with FileLock(home.with_suffix(".lock")):  # one of pytest's processes trains, the others wait
            return RealPair(made(print))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def loaded(real_pair: RealPair) -> Loaded:
    return Loaded(real_pair, LocalSource.load(real_pair.llm), LocalSource.load(real_pair.slm))
