"""Certificates of answers that were drawn inside vLLM: recorded by its worker, read by a response's id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from starlette.applications import Starlette
from starlette.testclient import TestClient
from typer.testing import CliRunner

from purify_adapters.vllm_engine import slots
from purify_adapters.vllm_engine.contracts import V1
from purify_adapters.vllm_engine.endpoint import EXTENSION, CertificateEndpoint
from purify_adapters.vllm_engine.ledger import Ledger
from purify_adapters.vllm_engine.running import Engine
from purify_adapters.vllm_engine.slots import SlotLogitsProcessor
from purify_adapters.vllm_engine.worker import CertificateWorker
from purify_plugins import ConfigError, Purifier, Sampling
from purify_plugins.canonical_json import canonical, digest
from purify_plugins.certificates import read, recompute, verify
from purify_plugins.certificates.explain import summary
from purify_plugins.cli import app
from purify_plugins.errors import AlteredError, ForgedError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.signing.keys import HeldKey
from purify_plugins.signing.signer import Signer
from purify_plugins.store.places import records_at
from purify_plugins.store.store import CertificateStore
from purify_plugins.testing import ToySource, letters
from purify_plugins.threat import Facts, claim
from purify_plugins.types import Certificate
from purify_plugins.verifying.examine import Known, examined
from tests.adapters.engine import Engine as V1Engine
from tests.adapters.engine import Request, SamplingParams, config, loaded
from tests.adapters.engine_v2 import Drafter, RunnerV2, Running

ABC = letters("abcdef")
BIG, SMALL = ToySource(ABC, 1), ToySource(ABC, 2)
POLICIES: dict[str, dict[str, Any]] = {"capped": {"total": 6.0}, "balanced": {"budget": 3.0}, "geometric": {}}
PLUGINS = load_plugins([])


@cache
def purifier(policy: str) -> Purifier:
    made = PLUGINS.make("purify_policies", policy, POLICIES[policy])
    return Purifier(Engine(ABC, 256), SMALL, made, plugins=PLUGINS)


def runner(monkeypatch: pytest.MonkeyPatch, policy: str = "capped", **options: Any) -> RunnerV2:
    monkeypatch.setattr(slots, "purifier_of", lambda model: (purifier(policy), Sampling()))
    random = options.pop("random", Random(0))
    return RunnerV2(BIG, lambda state: SlotLogitsProcessor(config("x"), state), random, **options)


class Worker(CertificateWorker):
    """vLLM's worker, with the parts of V2's runner that the extension reads."""

    def __init__(self, engine: RunnerV2) -> None:
        states = SimpleNamespace(
            index_to_req_id=engine.names,
            req_id_to_index=_Inverse(engine.names),
        )
        sampler = SimpleNamespace(logits_processors=[object(), engine.processor])
        self.model_runner = SimpleNamespace(req_states=states, sampler=sampler)


class _Inverse:
    def __init__(self, names: dict[int, str]) -> None:
        self.names = names

    def __iter__(self) -> Any:
        return iter(self.names.values())


def drafts(random: Random) -> Drafter:
    return lambda ids: [random.randrange(len(ABC) - 1) for _ in range(random.randint(0, 3))]


def requests(number: int = 4, **options: Any) -> list[Running]:
    params = SamplingParams(**{"max_tokens": 9, "ignore_eos": True, **options})
    return [Running((at % 5, 1), params, name=f"cmpl-{at}-0-0123abcd") for at in range(number)]


def certified(worker: Worker, response: str, choice: int | None = None) -> Certificate:
    told = worker.purify_certificate(response, choice)
    assert "text" in told, told
    return read(told["text"])


def recording(
    monkeypatch: pytest.MonkeyPatch, policy: str = "capped", **options: Any
) -> tuple[RunnerV2, Worker]:
    """An engine, and its worker that records what is drawn."""
    engine = runner(monkeypatch, policy, **options)
    worker = Worker(engine)
    assert worker.purify_certify()
    return engine, worker


def finished(monkeypatch: pytest.MonkeyPatch, *asked: Running, policy: str = "capped") -> Worker:
    engine, worker = recording(monkeypatch, policy)
    for request in asked:
        engine.add(request)
    engine.run()
    return worker


@pytest.mark.parametrize("policy", POLICIES)
def test_every_answer_has_a_certificate_of_its_own_tokens_whatever_the_schedule(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under drafts right and wrong, cut prompts, and requests that are taken out and resumed elsewhere."""
    random = Random(3)
    engine, worker = recording(monkeypatch, policy, random=random, drafter=drafts(random), chunk=1, slots=3)
    asked = requests(8)
    waiting = list(asked)
    while waiting or engine.running:
        while waiting and engine.free:
            engine.add(waiting.pop(0))
        if random.random() < 0.3:
            waiting.append(random.choice(engine.running))
            engine.take_out(waiting[-1])
        if engine.running:
            engine.step()
    for at, request in enumerate(asked):
        found = certified(worker, f"cmpl-{at}")
        assert [row[0] for row in found.body["steps"]] == request.answer
        assert tuple(found.body["prompt"]) == request.prompt
        verify(found, PLUGINS)
        assert recompute(found, SMALL) < 1e-4
        method = found.body["method"]
        expected = ("weights", method["claimed"]) if policy != "geometric" else ("none", "none")
        assert (method["walk"], method["adversary"], method["guarantee"]) == ("in-engine", *expected)


def test_alike_requests_that_are_taken_out_together_have_records_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One question asked thrice with one answer: each goes on from a record that looks like the others'."""
    engine, worker = recording(monkeypatch)
    params = SamplingParams(temperature=0.0, max_tokens=9, ignore_eos=True)
    asked = [Running((0, 1), params, name=f"cmpl-{at}-0-0123abcd") for at in range(3)]
    for request in asked:
        engine.add(request)
    for _ in range(2):
        engine.step()
        for request in asked:
            engine.take_out(request)
        for request in asked:
            engine.add(request)
    engine.run()
    for at, request in enumerate(asked):
        found = certified(worker, f"cmpl-{at}")
        assert [row[0] for row in found.body["steps"]] == request.answer
        verify(found, PLUGINS)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_tokens": 5}, "length"),
        ({"max_tokens": 250, "ignore_eos": False}, "eos"),
        ({"max_tokens": 250, "stop": ["a"]}, "stop"),
    ],
    ids=["length", "end", "stop"],
)
def test_a_certificate_ends_where_the_answer_does(
    options: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM looks for a text that ends an answer outside the worker, and later: the rest is no part of it."""
    [request] = requests(1, **options)
    found = certified(finished(monkeypatch, request), "cmpl-0")
    verify(found, PLUGINS)
    recompute(found, SMALL)
    answer, steps = found.body["answer"], [row[0] for row in found.body["steps"]]
    assert (answer["finish_reason"], answer["limited_by"]) == (reason, "max_tokens")
    assert steps == request.answer[: len(steps)]
    assert (reason == "stop") == (len(steps) < len(request.answer))


def test_a_certificate_ends_where_the_context_does(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, worker = recording(monkeypatch)
    [request] = requests(1, max_tokens=400)
    engine.add(request)
    while len(request.ids) < 256:
        engine.step()
    engine.take_out(request)
    found = certified(worker, "cmpl-0")
    verify(found, PLUGINS)
    answer = found.body["answer"]
    assert (answer["finish_reason"], answer["limit"], answer["limited_by"]) == ("length", 254, "context")


def test_an_answer_that_the_engine_cut_is_certified_as_far_as_it_was_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, worker = recording(monkeypatch)
    [request] = requests(1)
    engine.add(request)
    for _ in range(3):
        engine.step()
    assert "still being written" in worker.purify_certificate("cmpl-0")["error"]
    engine.take_out(request)  # its reader has gone
    found = certified(worker, "cmpl-0")
    verify(found, PLUGINS)
    assert [row[0] for row in found.body["steps"]] == request.answer
    assert found.body["answer"]["limited_by"] == "engine"


def test_tokens_that_were_not_drawn_here_leave_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, worker = recording(monkeypatch)
    forced, resumed = requests(2)
    engine.add(forced)
    engine.step()
    engine.step()
    forced.answer[-1] = (forced.answer[-1] + 1) % 6
    engine.state.all_token_ids.gpu[forced.slot, len(forced.ids) - 1] = forced.answer[-1]
    resumed.answer += [4, 4]  # as after the process was restarted
    engine.add(resumed)
    engine.run()
    assert "not drawn here" in worker.purify_certificate("cmpl-0")["error"]
    assert "before anything was recorded" in worker.purify_certificate("cmpl-1")["error"]


def test_a_prompt_that_the_slm_cannot_read_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Running((0, len(ABC) + 1), SamplingParams(max_tokens=4), name="cmpl-x")
    worker = finished(monkeypatch, odd)
    assert "no token of it was drawn" in worker.purify_certificate("cmpl-x")["error"]


def test_the_answers_of_one_response_are_told_apart_by_their_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's ids: of n, of several prompts, and with eight random digits at the end."""
    names = [f"{n}_cmpl-q-{prompt}-{n}{prompt}00abcd" for prompt in (0, 1) for n in (0, 1)]
    asked = [
        Running((at, 1), SamplingParams(max_tokens=3, ignore_eos=True), name=name)
        for at, name in enumerate(names)
    ]
    worker = finished(monkeypatch, *reversed(asked))
    for choice, request in enumerate(asked):
        assert tuple(certified(worker, "cmpl-q", choice).body["prompt"]) == request.prompt
    assert worker.purify_certificate("cmpl-q") == {
        "error": "it has 4 answers; add ?choice=0 and so on",
        "choices": 4,
    }
    for other in ("cmpl-", "cmpl", "", "q", ".*"):
        assert worker.purify_certificate(other)["choices"] == 0, "no part of an id is one"


def test_a_certificate_is_signed_and_recorded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key, records = HeldKey.new(), records_at("sqlite:answers.db", tmp_path)
    signed = purifier("capped").replace(signer=Signer([key]), store=CertificateStore(records))
    monkeypatch.setattr(f"{__name__}.purifier", lambda policy: signed)
    worker = finished(monkeypatch, *requests(2))
    told = [worker.purify_certificate(f"cmpl-{at}")["text"] for at in (0, 1, 0)]
    assert told[0] == told[2] != told[1]
    seen = [examined(text.encode(), Known(keys=(key.public,)), PLUGINS) for text in told[:2]]
    links = [each.opened.statement.link for each in seen if each.opened.statement]
    assert [(each.verdict[:14], each.code) for each in seen] == [("Verdict: HOLDS", 0)] * 2
    assert [link.sequence for link in links] == [0, 1]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in told[:2]]
    assert [each.facts["document"] for each in records.records()] == digests


def test_nothing_is_recorded_unless_the_worker_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = runner(monkeypatch)
    for request in requests():
        engine.add(request)
    engine.run()
    assert not engine.processor.ledger.records


def test_old_records_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purify_adapters.vllm_engine.ledger.KEPT", 20)
    worker = finished(monkeypatch, *requests(5))
    extra = finished(monkeypatch, *requests(1))
    engine, worker = recording(monkeypatch, slots=1)
    for request in requests(6):
        engine.add(request)
        engine.run()
    assert len(engine.processor.ledger.records) < 6
    assert worker.purify_certificate("cmpl-0")["choices"] == 0
    assert certified(worker, "cmpl-5")
    assert certified(extra, "cmpl-0")


def test_a_worker_that_draws_nothing_says_so() -> None:
    """Ranks of a pipeline before the last have no sampler; a worker without the processor cannot be asked."""
    worker: Any = CertificateWorker()
    worker.model_runner = SimpleNamespace(sampler=None)
    assert worker.purify_certify() is False
    assert worker.purify_certificate("x") == {}
    worker.model_runner = SimpleNamespace(sampler=SimpleNamespace(logits_processors=[]))
    with pytest.raises(ConfigError, match="--logits-processors"):
        worker.purify_certify()


def test_model_runner_v1_certifies_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows move in its batch, and a request that is taken out goes on in another row."""
    module = loaded(monkeypatch, V1)
    monkeypatch.setattr(module, "purifier_of", lambda model: (purifier("capped"), Sampling()))
    processor = module.PurifyLogitsProcessor(config("x"), torch.device("cpu"), False)
    engine = V1Engine(BIG, processor)
    worker: Any = CertificateWorker()
    batch = SimpleNamespace(logitsprocs=SimpleNamespace(all=[processor]), req_ids=_Names(engine))
    worker.model_runner = SimpleNamespace(input_batch=batch, requests={})
    assert worker.purify_certify()
    params = SamplingParams(max_tokens=9, ignore_eos=True)
    asked = [Request((at, 1), params, name=f"cmpl-{at}-0-0123abcd") for at in range(4)]
    for request in asked:
        engine.add(request)
    engine.step(keep=False)
    engine.step()
    engine.swap(0, 2)
    engine.take_out(asked[1])
    engine.step()
    engine.add(asked[1], resumed=True)
    engine.step()
    asked[3].answer[-1] = (asked[3].answer[-1] + 1) % 6
    engine.run()
    for at, request in enumerate(asked[:3]):
        found = certified(worker, f"cmpl-{at}")
        assert [row[0] for row in found.body["steps"]] == request.answer
        verify(found, PLUGINS)
        assert recompute(found, SMALL) < 1e-4
    assert "not drawn here" in worker.purify_certificate("cmpl-3")["error"]


class _Names:
    def __init__(self, engine: V1Engine) -> None:
        self.engine = engine

    def __getitem__(self, row: int) -> str:
        return self.engine.batch[row].name


# The route


class Client:
    """vLLM's `EngineClient`, as far as an endpoint plugin may use it."""

    def __init__(self, *workers: Any) -> None:
        self.workers = workers

    async def collective_rpc(
        self, method: str, timeout: float | None = None, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> list[Any]:
        return [json.loads(json.dumps(getattr(each, method)(*args))) for each in self.workers]


ARGS = SimpleNamespace(worker_extension_cls=EXTENSION, data_parallel_size=1)


async def application(*workers: Any) -> Starlette:
    server = Starlette()
    plugin = CertificateEndpoint()
    plugin.attach_router(server)
    await plugin.init_state(Client(*workers), server.state, ARGS)
    return server


async def test_the_route_answers_with_the_certificate_as_it_is_verified(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = runner(monkeypatch)
    idle: Any = CertificateWorker()
    idle.model_runner = SimpleNamespace(sampler=None)
    client = TestClient(await application(idle, Worker(engine)))
    for request in requests(2):
        engine.add(request)
    engine.step()
    assert client.get("/v1/purify/certificates/cmpl-0").status_code == 409
    engine.run()
    found = client.get("/v1/purify/certificates/cmpl-0")
    assert found.headers["content-type"] == "application/json"
    file = tmp_path / "certificate.json"
    file.write_bytes(found.content)
    told = CliRunner().invoke(app, ["verify", str(file)], catch_exceptions=False).stdout
    assert "path, against untrusted weights in an honest engine" in told
    assert "In-engine: the engine that runs the LLM drew the tokens" in told


async def test_the_route_says_what_it_cannot_find(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(await application(Worker(runner(monkeypatch))))
    missing = client.get("/v1/purify/certificates/cmpl-none")
    assert missing.status_code == 404
    assert "cmpl-none" in missing.json()["error"]["message"]
    assert client.get("/v1/purify/certificates/a%2Fb").status_code == 404
    for choice in ("-1", "x", "²", "9" * 99):
        assert client.get("/v1/purify/certificates/a", params={"choice": choice}).status_code == 400


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"worker_extension_cls": ""}, "--worker-extension-cls"),
        ({"data_parallel_size": 2}, "--data-parallel-size"),
    ],
)
async def test_a_server_whose_certificates_could_not_be_read_does_not_start(
    args: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = SimpleNamespace(**{**vars(ARGS), **args})
    with pytest.raises(ConfigError, match=words):
        await CertificateEndpoint().init_state(Client(Worker(runner(monkeypatch))), SimpleNamespace(), told)


async def test_a_server_without_an_engine_does_not_start() -> None:
    with pytest.raises(ConfigError, match="without an engine"):
        await CertificateEndpoint().init_state(None, SimpleNamespace(), ARGS)


def test_vllm_finds_the_plugin_and_what_its_protocol_asks_for() -> None:
    """`vllm/plugins/endpoint_plugins/interface.py`, 0.33; it loads where VLLM_PLUGINS names it."""
    [entry] = entry_points(group="vllm.endpoint_plugins", name="purify")
    plugin = entry.load()()
    assert plugin.name == entry.name
    assert plugin.required_tasks == ("generate",)
    module, _, name = EXTENSION.rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is CertificateWorker
    own = {each for each in dir(CertificateWorker) if not each.startswith("__")}
    assert own == {"purify_certify", "purify_certificate"}, (
        "vLLM refuses an extension that hides its own names"
    )


# What it claims


def test_an_in_engine_claim_is_never_against_the_engine() -> None:
    for draws in ("system", "keyed"):
        facts = Facts("path", "sampled", "in-engine", draws, "trusted", "in-process")
        assert claim(facts)[:2] == ("path", "weights")
        assert claim(facts._replace(llm="untrusted"))[:2] == ("none", "none")


def test_a_certificate_of_another_decoder_cannot_say_that_the_engine_cut_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = certified(finished(monkeypatch, *requests(1)), "cmpl-0")
    body = {key: each for key, each in found.body.items() if key != "digest"}
    reason = "every token was drawn from the fused row, and nothing was applied after it"
    method = {**body["method"], "walk": "lockstep", "adversary": "engine", "reason": reason}
    verify(_signed({**body, "method": method}), PLUGINS)  # its issuer's word
    with pytest.raises(ForgedError, match="no such guarantee"):
        verify(_signed({**body, "method": {**body["method"], "adversary": "engine"}}), PLUGINS)
    answer = {**body["answer"], "limit": 9, "limited_by": "engine"}
    sampling = {**method["sampling"], "max_tokens": 10}
    cut = {**body, "answer": answer, "method": {**method, "sampling": sampling}}
    with pytest.raises(ForgedError, match="no engine decoded it"):
        verify(_signed(cut), PLUGINS)
    with pytest.raises(AlteredError):
        read(found.text.replace("in-engine", "lockstep"))
    assert any("In-engine" in line for line in summary(found, None))


def _signed(body: dict[str, Any]) -> Certificate:
    return Certificate(canonical({**body, "digest": digest(body)}))


def test_a_ledger_reads_no_other_response(monkeypatch: pytest.MonkeyPatch) -> None:
    names: Sequence[str] = (
        "chatcmpl-a1",
        "chatcmpl-a1-deadbeef",
        "1_chatcmpl-a1-deadbeef",
        "chatcmpl-a1_2-deadbeef",
    )
    ledger = Ledger(purifier("capped"))
    for at, name in enumerate((*names, "chatcmpl-a12-deadbeef", "xchatcmpl-a1")):
        ledger.id_of = lambda slot, name=name: name
        ledger.begin(at, Sampling(), SamplingParams())
    assert {name for name, _ in ledger.answers("chatcmpl-a1")} == set(names)
