"""A key decides under which policy an answer is drawn, and a request can only make it stricter."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from purify_plugins.configuration.config import check_config
from purify_plugins.configuration.consent import wishes
from purify_plugins.configuration.digest import config_digest
from purify_plugins.configuration.tenants import Tenant, tenants_of, with_keys
from purify_plugins.errors import ConfigError, PurifyError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ToySource
from tests.adapters.gateways import Served, events, serving, stubs
from tests.toys import BYTES

if TYPE_CHECKING:
    import httpx

KEYS = {name: f"{name}-0123456789abcdef" for name in ("own", "red", "blue", "none")}
PLUGINS = load_plugins()
SMALL = {"max_new_tokens": 3, "do_sample": True}
ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/generate", {"inputs": "hello", "parameters": SMALL}),
    ("/generate_stream", {"inputs": "hello", "parameters": SMALL}),
    ("/", {"inputs": "hello", "parameters": SMALL}),
    ("/", {"inputs": "hello", "parameters": SMALL, "stream": True}),
    ("/invocations", {"inputs": "hello", "parameters": SMALL}),
    *(
        (path, {**body, "stream": stream})
        for path, body in (
            ("/v1/completions", {"prompt": "hello", "max_tokens": 3}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}),
            ("/v1/responses", {"input": "hi", "max_output_tokens": 3}),
        )
        for stream in (False, True)
    ),
]


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


TENANTS = (
    Tenant("red", (sha256(KEYS["red"]),), policy=PLUGINS.policy({"name": "windowed", "budget": 2.0})),
    Tenant("blue", (sha256(KEYS["blue"]),), strength=0.5, require_guarantee=True, max_concurrent=1),
)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    purifier = stubs(policy=PLUGINS.policy({"name": "windowed", "budget": 8.0}))
    with serving(purifier, api_key=KEYS["own"], tenants=TENANTS, certificates=200) as found:
        yield found


def digest_of(answer: httpx.Response) -> str:
    """The digest of an answer's certificate, from its header or its last event."""
    if found := answer.headers.get("x-purify-certificate"):
        return found
    told = [each["purify"] for each in events(answer.text) if isinstance(each, dict) and "purify" in each]
    return str(told[-1]["certificate"])


def budget(served: Served, path: str, body: Any, name: str, **headers: str) -> float:
    """The `budget` under which an answer was drawn, by its certificate."""
    answer = served.post(path, body, headers={**bearer(name), **headers})
    answer.raise_for_status()
    proof = served.client.get(f"/certificates/{digest_of(answer)}", headers=bearer(name)).json()
    return float(proof["method"]["parameters"]["budget"])


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_every_route_draws_under_the_policy_of_its_key(
    served: Served, path: str, body: dict[str, Any]
) -> None:
    assert [budget(served, path, body, name) for name in ("own", "red", "blue")] == [8.0, 2.0, 4.0]


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_every_route_lets_a_request_tighten_and_never_loosen(
    served: Served, path: str, body: dict[str, Any]
) -> None:
    for name, whole in (("own", 8.0), ("red", 2.0), ("blue", 4.0)):
        for strength in ("0.5", "0", "1"):
            found = budget(served, path, body, name, **{"x-purify-strength": strength})
            assert found == whole * float(strength)
        for wrong in ("1.5", "inf", "nan", "-1", "strong", ""):
            refused = served.post(path, body, headers={**bearer(name), "x-purify-strength": wrong})
            assert (refused.status_code, "x-purify-strength" in refused.text) == (422, True), wrong


def test_a_header_that_asks_for_what_is_not_known_is_refused_by_its_name(served: Served) -> None:
    """A typing error would have left the policy as loose as it was."""
    for headers in (
        [("x-purify-strenght", "0.5")],
        [("x-purify-policy", "llm")],
        [("x-purify-strength", "0.5"), ("x-purify-strength", "1")],
    ):
        sent = [*bearer("red").items(), *headers]
        refused = served.client.post(*ROUTES[0][:1], json=ROUTES[0][1], headers=sent)
        assert (refused.status_code, headers[0][0] in refused.text) == (422, True)


@pytest.mark.parametrize(
    "header",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", f"Bearer {KEYS['none']}")],
        [("authorization", f"Bearer {KEYS['red'][:-1]}")],
        [("authorization", f"Bearer {KEYS['red']}x")],
        [("authorization", f"Bearer  {KEYS['red']}")],
        [("authorization", f"bearer {KEYS['red']}")],
        [("authorization", f"Basic {KEYS['red']}")],
        [("authorization", KEYS["red"])],
        [("authorization", f"Bearer {KEYS['red'].upper()}")],
        [("authorization", f"Bearer {sha256(KEYS['red'])}")],
        [("authorization", f"Bearer {KEYS['red']}, Bearer {KEYS['blue']}")],
        [("authorization", f"Bearer {KEYS['red']}"), ("authorization", f"Bearer {KEYS['blue']}")],
        [("authorization", f"Bearer {KEYS['none']}"), ("authorization", f"Bearer {KEYS['red']}")],
        [("x-api-key", KEYS["red"])],
        [("authorization", "Bearer \xe9\xff")],
    ],
)
def test_a_key_that_is_not_exactly_a_tenant_s_opens_nothing(
    served: Served, header: list[tuple[str, str]]
) -> None:
    sent = [(name, value.encode("latin-1")) for name, value in header]
    for path, body in ROUTES:
        assert served.client.post(path, json=body, headers=sent).status_code == 401
    assert served.client.get("/certificates/x", headers=sent).status_code == 401


def test_a_tenant_s_certificates_are_its_own(served: Served) -> None:
    """They hold the prompt's token ids."""
    digest = digest_of(served.post(*ROUTES[0], headers=bearer("red")))
    found = [
        served.client.get(f"/certificates/{digest}", headers=bearer(name)).status_code
        for name in ("red", "blue", "own")
    ]
    assert found == [200, 404, 404]


def test_a_tenant_s_requests_are_counted_by_its_name_and_by_no_name_that_a_client_gives(
    served: Served,
) -> None:
    served.post(*ROUTES[0], headers=bearer("red"))
    served.post(ROUTES[0][0], {"inputs": ""}, headers=bearer("red"))
    for number in range(50):
        served.post(*ROUTES[0], headers={"authorization": f"Bearer made-up-{number}"})
    lines = [line for line in served.client.get("/metrics").text.splitlines() if "tenant=" in line]
    assert {line.split('"')[1] for line in lines} <= {"red", "blue"}
    counted = {line.split("{")[0] for line in lines if '"red"' in line}
    assert counted == {f"purify_tenant_{each}_total" for each in ("requests", "generated_tokens", "failures")}


def test_a_tenant_may_require_the_guarantee_of_its_own_requests(served: Served) -> None:
    greedy = {"inputs": "hello", "parameters": {"max_new_tokens": 3}}
    found = [served.post("/generate", greedy, headers=bearer(name)).status_code for name in ("red", "blue")]
    assert found == [200, 422]


def test_a_tenant_has_no_more_requests_under_way_than_it_may() -> None:
    held, free = threading.Event(), threading.Event()

    class Slow(ToySource):
        def open(self, prompts: Any, scored: int = 0) -> Any:
            held.set()
            free.wait(60)
            return super().open(prompts, scored)

    with serving(stubs(Slow(BYTES, 1), policy="windowed"), tenants=TENANTS) as served:
        first = threading.Thread(target=lambda: served.post(*ROUTES[0], headers=bearer("blue")))
        first.start()
        assert held.wait(60)
        assert served.post(*ROUTES[1], headers=bearer("blue")).status_code == 429
        free.set()
        first.join()
        assert served.post(*ROUTES[0], headers=bearer("blue")).status_code == 200


def test_a_reload_changes_who_may_ask(served: Served) -> None:
    with serving(stubs(policy="windowed"), tenants=TENANTS) as served:
        assert served.post(*ROUTES[0], headers=bearer("red")).status_code == 200
        served.app.adopt(served.app.purifier, TENANTS[1:])
        found = [served.post(*ROUTES[0], headers=bearer(name)).status_code for name in ("red", "blue")]
        assert found == [401, 200]
        unfit = Tenant("unfit", ("0" * 64,), policy=PLUGINS.policy("minimum"), strength=0.5)
        with pytest.raises(ConfigError, match="cannot be tightened"):
            served.app.adopt(served.app.purifier, (unfit,))
        assert served.post(*ROUTES[0], headers=bearer("blue")).status_code == 200


def configured(file: Path, *tenants: dict[str, Any]) -> tuple[Tenant, ...]:
    table = {"llm": {"model": "a"}, "slm": {"model": "b"}, "tenant": list(tenants)}
    return tenants_of(with_keys(check_config(table, file)), PLUGINS)


def test_a_tenant_s_keys_come_from_the_environment_a_file_or_their_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RED", KEYS["red"])
    (tmp_path / "keys").write_text(f"{KEYS['blue']}\n\n{KEYS['none']}\n")
    policy = {"name": "windowed", "budget": 2.0}
    red, blue, own = configured(
        tmp_path / "purify.toml",
        {"name": "red", "key_env": "RED", "policy": policy},
        {"name": "blue", "key_file": "keys", "strength": 0.5, "require_guarantee": True},
        {"name": "own", "key_sha256": sha256(KEYS["own"]), "max_concurrent": 3},
    )
    assert red == TENANTS[0]
    assert blue.key_sha256 == (sha256(KEYS["blue"]), sha256(KEYS["none"]))
    assert (blue.strength, blue.require_guarantee, own.max_concurrent) == (0.5, True, 3)
    assert not any(sha256(key) in repr((red, blue, own)) for key in KEYS.values())


GOOD = {"name": "red", "key_sha256": "a" * 64}


@pytest.mark.parametrize(
    ("tenants", "words"),
    [
        ([{"name": "red"}], "one of key_env, key_file, key_sha256"),
        ([{**GOOD, "key_env": "RED"}], "one of key_env, key_file, key_sha256"),
        ([{"name": "red", "key": KEYS["red"]}], "tenant option 'key'"),
        ([{"name": "red", "key_env": "UNSET"}], "'UNSET', which is not set"),
        ([{"name": "red", "key_env": "SHORT"}], "16 characters or more"),
        ([{"name": "red", "key_file": "nowhere"}], "nowhere"),
        ([{"name": "red", "key_file": "empty"}], "16 characters or more"),
        ([{"name": "red", "key_sha256": "a" * 63}], "64 hexadecimal digits"),
        ([{"name": "red", "key_sha256": "A" * 64}], "64 hexadecimal digits"),
        ([{"name": "red", "key_sha256": []}], "needs one of"),
        ([{"key_sha256": "a" * 64}], "name"),
        ([{**GOOD, "name": 'red"} 1\n'}], "a tenant's name"),
        ([{**GOOD, "strength": 1.5}], "only tightens"),
        ([{**GOOD, "strength": True}], "only tightens"),
        ([{**GOOD, "require_guarantee": 1}], "true or false"),
        ([{**GOOD, "max_concurrent": 0}], "1 or more"),
        ([{**GOOD, "policy": {"name": "windwed"}}], "windwed"),
        ([GOOD, {**GOOD, "key_sha256": "b" * 64}], "two tenants have one name 'red'"),
        ([GOOD, {**GOOD, "name": "blue"}], "two tenants have one key"),
    ],
)
def test_what_is_wrong_with_a_tenant_is_said(
    tenants: list[dict[str, Any]], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT", "short")
    (tmp_path / "empty").touch()
    with pytest.raises(PurifyError, match=words) as found:
        configured(tmp_path / "purify.toml", *tenants)
    assert "[[tenant]] " in str(found.value)
    assert KEYS["red"] not in str(found.value)


def test_a_tenant_s_key_is_not_the_gateway_s_own() -> None:
    with (
        pytest.raises(ConfigError, match="also a tenant's"),
        serving(stubs(), api_key=KEYS["red"], tenants=TENANTS),
    ):
        pass


def test_the_keys_are_in_no_digest_and_need_no_consent(tmp_path: Path) -> None:
    """A gateway's keys are sent to nobody; a new key is no new configuration, but it is one to take over."""
    (tmp_path / "keys").write_text(KEYS["red"])
    table = {"llm": {"model": "a"}, "slm": {"model": "b"}, "tenant": [{"name": "red", "key_file": "keys"}]}
    named = check_config(table, tmp_path / "purify.toml")
    before = with_keys(named)
    (tmp_path / "keys").write_text(KEYS["blue"])
    after = with_keys(named)
    assert before != after
    assert config_digest(before) == config_digest(after) == config_digest(named)
    env = {**table, "tenant": [{"name": "red", "key_env": "RED"}]}
    assert list(wishes(env, tmp_path)) == []
