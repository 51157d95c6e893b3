"""Where signed certificates are handed out: the gateway, LangChain, LlamaIndex, and stages' hooks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from purify_plugins import Purifier
from purify_plugins.plugin.hookspecs import hookimpl
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.signing.keys import HeldKey
from purify_plugins.signing.signer import Signer
from purify_plugins.testbed import LLM, SLM
from purify_plugins.types import Completion
from purify_plugins.verifying.chain_check import check_chain
from purify_plugins.verifying.opening import opened
from tests.adapters.gateways import serving, stubs

KEY = HeldKey.new()


def test_the_gateway_s_certificates_are_a_chain_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Eight answers at once: each is signed, and none waits for another's decode."""
    purifier = stubs().replace(signer=Signer([KEY], tmp_path / "log"))
    with serving(purifier, certificates=100) as served:
        assert served.client.get("/info").json()["certificate_keys"] == [KEY.public.id]
        bodies = [{"inputs": "a" * at, "parameters": {"max_new_tokens": 3}} for at in range(1, 9)]
        with ThreadPoolExecutor(8) as pool:
            found = [*pool.map(lambda body: served.post("/generate", body), bodies)]
        named = [each.headers["x-purify-certificate"] for each in found]
        texts = {name: served.client.get(f"/certificates/{name}").content for name in named}
    stated = [opened(each, [KEY.public]).statement for each in texts.values()]
    assert sorted(each.link.sequence for each in stated if each) == [*range(8)]
    for each in stated:
        assert each is not None
        check_chain(each, tmp_path / "log", [KEY.public])
    assert [*(tmp_path / "log").glob("*.root.json")]  # the gateway has closed its day


def test_without_a_key_the_gateway_names_none() -> None:
    with serving(stubs()) as served:
        assert "certificate_keys" not in served.client.get("/info").json()


def test_a_hook_sees_the_certificate_as_it_is_handed_out() -> None:
    class Log:
        seen: list[str] = []  # noqa: RUF012  # the hook's own record

        @hookimpl
        def purify_completed(self, completion: Completion) -> None:
            self.seen.append(completion.certificate.issued)

    plugins = load_plugins([])
    plugins.register(Log(), name="log")
    purifier = stubs(plugins=plugins).replace(signer=Signer([KEY]))
    [answer] = purifier.generate("a", max_tokens=3, errors="raise")
    assert Log.seen == [answer.certificate.issued]
    assert opened(answer.certificate.issued.encode(), [KEY.public]).signers


def test_frameworks_hand_out_the_envelope() -> None:
    from purify_adapters.langchain.chat import ChatPurified

    purifier = Purifier.load(LLM, SLM).replace(signer=Signer([KEY]))
    chat = ChatPurified(purifier=purifier, certificate=True, max_tokens=3)
    about = chat.invoke("Hello").response_metadata["purification"]
    assert opened(about["certificate"].encode(), [KEY.public]).signers
