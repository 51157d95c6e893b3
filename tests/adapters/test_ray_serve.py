"""The gateway on Ray Serve, for real: load spread, replicas killed, configurations changed under way."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from purify_plugins.errors import PurifyError
from purify_plugins.plugin.installed import installed
from tests.adapters.chaos import Served, ray_serve, requested, until
from tests.adapters.chaos_models import written
from tests.adapters.gateways import events

pytest.importorskip(
    "ray.serve", reason="ray is not installed: pip install -c constraints.txt -e '.[all,test,ray]'"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),  # of ray's own models
]

SLOTS = 2
"""Answers at once in a replica: the stub LLM sleeps, so that these are what two replicas have twice of."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("ray")
    with ray_serve(folder, f"max_concurrent={SLOTS}", "cpus=0.5", "cluster_gpus=1") as found:
        yield found


def deploy(served: Served, line: str, replicas: int) -> None:
    assert served.tell(line) == "deployed"
    until(lambda: len(served.replicas()) == replicas)


def throughput(served: Served, answers: int = 48) -> float:
    """Answers a second, with more readers than there are slots."""

    async def act() -> float:
        async with httpx.AsyncClient(base_url=served.url, timeout=120, trust_env=False) as client:
            body = {"inputs": "Once", "parameters": {"max_new_tokens": 12, "do_sample": True}}
            left = iter(range(answers))

            async def read() -> None:
                for _ in left:
                    (await client.post("/generate", json=body)).raise_for_status()

            start = time.perf_counter()
            await asyncio.gather(*(read() for _ in range(6 * SLOTS)))
            return answers / (time.perf_counter() - start)

    asyncio.run(act())
    return asyncio.run(act())


def info(served: Served) -> Any:
    return httpx.get(f"{served.url}/info", trust_env=False, timeout=60).raise_for_status().json()


def stream(served: Served, tokens: int) -> Any:
    body = {"inputs": "Once", "parameters": {"max_new_tokens": tokens, "do_sample": True}}
    return httpx.stream("POST", f"{served.url}/generate_stream", json=body, timeout=120, trust_env=False)


def test_two_replicas_serve_1_6_times_what_one_does(served: Served) -> None:
    deploy(served, "replicas=1", 1)
    one = throughput(served)
    deploy(served, "replicas=2", 2)
    two = throughput(served)
    assert two > 1.6 * one, f"{one:.1f} and {two:.1f} answers a second"


def test_a_replica_killed_under_load_loses_no_finished_answer_and_no_stream_its_end(served: Served) -> None:
    """Behind Serve's proxy not even a connection breaks."""
    deploy(served, "replicas=2", 2)
    found = requested(served, 300, readers=12, every=4, tokens=12, spared=1)
    assert found.killed >= 1, found
    assert found.untyped == 0, found
    assert (found.canaries, found.ends["hung"], found.ends["broken connection"]) == (0, 0, 0), found
    assert found.ends["whole"] > 150, found
    until(lambda: len(served.replicas()) == 2)


def test_a_stream_is_streamed_and_one_that_is_left_gives_its_slot_back(served: Served) -> None:
    """Twice as many are left as there are slots; each would take a minute."""
    deploy(served, "replicas=1", 1)
    for _ in range(2 * SLOTS):
        with stream(served, 3000) as answer:
            start, lines = time.monotonic(), answer.iter_lines()
            assert next(lines).startswith("data:")
            assert time.monotonic() - start < 20
    with stream(served, 3) as answer:
        assert events(answer.read().decode())[-1]["purify"]["certificate"]


def test_a_configuration_rolls_over_streams_that_go_on_and_a_wrong_one_over_none(
    served: Served, tmp_path: Path
) -> None:
    """A stream ends in the replica that it began with; Serve replaces one at a time."""
    deploy(served, "replicas=2 model_id=before", 2)
    told: list[Any] = []

    def read() -> None:
        with stream(served, 400) as answer:
            told.extend(events(answer.read().decode()))

    reading = threading.Thread(target=read)
    reading.start()
    deploy(served, "replicas=2 model_id=after", 2)
    until(lambda: {info(served)["model_id"] for _ in range(8)} == {"after"})
    reading.join(120)
    assert told[-1]["purify"]["certificate"]
    after = served.replicas()
    wrong = tmp_path / "purify.toml"
    wrong.write_text(written(tmp_path, 0.02).read_text().replace('"balanced"', '"balancd"'))
    said = served.tell(f"config={wrong}")
    assert said.startswith("failed")
    assert "did you mean 'balanced'" in said
    assert served.replicas() == after
    assert {info(served)["model_id"] for _ in range(8)} == {"after"}


def test_what_only_a_replica_can_find_wrong_stops_at_the_first_one(served: Served) -> None:
    """The key's variable is set where the application is built, and in no replica: the update ends there."""
    deploy(served, "replicas=2 model_id=kept", 2)
    said = served.tell("replicas=2 model_id=broken api_key_env=NO_SUCH_KEY")
    assert said.startswith("failed"), said
    found = {info(served)["model_id"] for _ in range(8)}
    assert found == {"kept"}
    assert "NO_SUCH_KEY" in served.log.read_text()
    deploy(served, "replicas=2 model_id=mended", 2)
    until(lambda: {info(served)["model_id"] for _ in range(8)} == {"mended"})


def test_a_replica_changes_its_configuration_in_place_and_keeps_the_one_it_has_where_it_cannot(
    tmp_path: Path,
) -> None:
    """As Serve calls `reconfigure` where only the `user_config` has changed; no cluster is needed."""
    from purify_adapters.ray_serve.deployment import PurifyReplica

    file = written(tmp_path, 0.0)
    sys.path.insert(0, str(tmp_path))
    installed.cache_clear()  # what is installed may have been asked for before

    async def act() -> None:
        replica = PurifyReplica()
        await replica.reconfigure({"file": str(file), "settings": {"model_id": "one"}})
        first = replica.switch.current
        assert first is not None
        assert first.gateway.service.identity.model == "one"
        await replica.reconfigure({"file": str(file), "settings": {"model_id": "two"}, "revision": 2})
        await asyncio.wait_for(first.end(), 10)
        for wrong in (
            {"settings": {"queue": -1}},
            {"api_key_env": "NO_SUCH_KEY"},
            {"file": str(tmp_path / "no")},
        ):
            with pytest.raises(PurifyError):
                await replica.reconfigure({"file": str(file), **wrong})
        second = replica.switch.current
        assert second is not None
        assert second.gateway.service.identity.model == "two"
        await second.end()

    try:
        asyncio.run(act())
    finally:
        sys.path.remove(str(tmp_path))
        installed.cache_clear()


def test_the_number_follows_the_queue(served: Served) -> None:
    deploy(served, "replicas=1", 1)
    assert served.tell("replicas=1 max_replicas=2 target_ongoing=1") == "deployed"
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            requested(served, 60, readers=8, every=0, tokens=12)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        until(lambda: len(served.replicas()) == 2, 120)
    finally:
        ended.set()
        loading.join()


def test_replicas_share_a_gpu_by_fractions(served: Served) -> None:
    """Of a cluster that says it has one: two halves are placed, and both serve."""
    deploy(served, "replicas=2 gpus=0.5", 2)
    assert info(served)["model_id"]
