"""What every test stands on: no network, steady threads, and how hard the laws are tried."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Set before anything imports torch or transformers; this file imports neither.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["PURIFY_SECRET"] = "the secret of tests, which anybody may know"  # a seed means one answer
os.environ.setdefault("OMP_NUM_THREADS", "1")  # toys are too small to share; sums keep one order

# Derandomised: the same commit gets the same verdict, however often it is judged, and however slowly.
LOADED = [HealthCheck.too_slow]  # a busy machine's fault, by the clock on the wall
settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, suppress_health_check=LOADED
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every Hypothesis test as a law."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.law)


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, the loop that every supported framework uses."""
    return "asyncio"
