"""`purify eval --ray`: the cells of an evaluation on a Ray cluster are those measured here."""

from __future__ import annotations

import os
import time
from concurrent.futures import as_completed
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from purify_hooks.evaluation.eval.results_cache import ResultsCache
from purify_hooks.evaluation.eval.run import Plan, run
from purify_hooks.evaluation.eval.suites.base import SuiteSettings
from purify_hooks.evaluation.eval.systems import systems_for
from purify_plugins.errors import ConfigError, PurifyError
from purify_plugins.utils import extras

ray = pytest.importorskip(
    "ray", reason="ray is not installed: pip install -c constraints.txt -e '.[all,test,ray]'"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),  # of ray's own models
]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two cores, however many there are; Ray keeps a token in the home directory."""
    home, os.environ["HOME"] = os.environ["HOME"], str(tmp_path_factory.mktemp("home"))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    os.environ["HOME"] = home


def fails(kind: str) -> None:
    if kind == "death":
        os._exit(1)
    raise ConfigError("the advice, whole")


def test_results_are_the_local_ones(tmp_path: Path) -> None:
    """Cell by cell: every sample of every suite but the seconds that it took."""
    from purify_hooks.evaluation.eval.asked import models_and_questions
    from purify_hooks.evaluation.eval.ray_pool import ray_pool

    models, questions = models_and_questions(None, None, None, 64)
    pair = models.load()
    systems = tuple(systems_for(pair.plugins, ["balanced"]))
    plan = Plan(models, questions, systems, SuiteSettings.quick(0), only=("backdoor",))
    caches = [ResultsCache(tmp_path / name) for name in ("here", "ray")]
    here = run(plan, pair, caches[0], lambda *_: None, jobs=1)
    there = run(plan, pair, caches[1], lambda *_: None, pool=ray_pool)
    assert [each.figures for each in here] == [each.figures for each in there]
    assert caches[0].cells.keys() == caches[1].cells.keys()
    assert all(caches[0].cells[key].samples == caches[1].cells[key].samples for key in caches[0].cells)
    assert len(caches[0].cells) > 2  # each model's and the policy's


def test_calls_are_spread_at_most_so_many_at_once() -> None:
    from purify_hooks.evaluation.eval.ray_pool import ray_pool

    def slowly(number: int) -> tuple[int, int, float]:
        start = time.time()
        time.sleep(0.5)
        return number, os.getpid(), start

    with ray_pool() as pool:
        found = [each.result() for each in as_completed([pool.submit(slowly, at) for at in range(6)])]
    assert sorted(number for number, *_ in found) == list(range(6))
    assert len({process for _, process, _ in found}) == 2
    assert os.getpid() not in {process for _, process, _ in found}
    with ray_pool(1) as pool:
        starts = sorted(each.result()[2] for each in [pool.submit(slowly, at) for at in range(3)])
    assert all(after - before > 0.45 for before, after in pairwise(starts))


def test_an_error_is_the_task_s_own_and_a_death_says_what_to_do() -> None:
    from purify_hooks.evaluation.eval.ray_pool import ray_pool

    with ray_pool(1) as pool:
        with pytest.raises(ConfigError, match=r"^the advice, whole$"):
            pool.submit(fails, "error").result()
        with pytest.raises(PurifyError, match="fewer at once"):
            pool.submit(fails, "death").result()


def test_draws_are_keyed_by_the_parent_s_secret() -> None:
    from purify_hooks.evaluation.eval.ray_pool import ray_pool
    from purify_plugins.decode.draw_keys import secret

    with ray_pool(1) as pool:
        assert pool.submit(secret).result() == secret()


def test_without_ray_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from purify_hooks.evaluation.eval.command import _pool

    monkeypatch.setitem(extras.MODULES, "ray", ("no_such_ray",))
    with pytest.raises(ConfigError, match="purify eval --ray needs no_such_ray"):
        _pool(True)
    assert _pool(False) is None
