"""`gatekeeper`: what is private is in nothing that is asked, and in what the reader gets."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from time import thread_time
from typing import Any

import pytest

from purify_hooks.evaluation import testbed
from purify_hooks.private.finders import plain
from purify_hooks.private.gatekeeper import Gatekeeper
from purify_hooks.private.redacted import Redacted
from purify_hooks.private.samples import samples
from purify_plugins import ConfigError, PromptError, RefusedError, Sampling
from purify_plugins.certificates import citing
from purify_plugins.grammar import Grammar
from purify_plugins.stages import Stage
from purify_plugins.stages.request import Request
from purify_plugins.stages.vault import Vault
from purify_plugins.stages.vault import restored as unveiled
from purify_plugins.testing import StageConformance
from purify_plugins.types import Chat
from tests.private.conversations import KINDS
from tests.private.echo import echoing
from tests.toys import both

KEY = "an operator's key of some length"
NAMES = ("Ada Quill", "Bluefin", "王小明")
MAIL = "ada@corp-mail.com"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIFY_VEIL_KEY", KEY)


def keeper(**options: Any) -> Gatekeeper:
    return Gatekeeper(**{"kinds": ("email",), "words": NAMES, "key_env": "PURIFY_VEIL_KEY", **options})


def asked(*messages: Any, tools: Any = (), **options: Any) -> Request:
    said = [{"role": "user", "content": each} if isinstance(each, str) else each for each in messages]
    return keeper().answer(Request(Chat(tuple(said), tuple(tools)), **options))


def call(arguments: Any) -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": "c1", "type": "function", "function": {"name": "mail", "arguments": text}}


def restored(vault: Vault | None, text: str) -> str:
    """The text as its reader gets it."""
    assert vault is not None
    return unveiled(vault, text)


def test_what_the_models_read_has_surrogates_and_the_reader_gets_the_values() -> None:
    said = f"Write to Ada Quill <{MAIL}>, Ms Quill, of BLUEFIN; QUILL's mail is {MAIL.upper()}."
    purifier, llm = echoing(keeper())
    [whole] = purifier.generate([said], errors="raise")
    streamed = "".join(map(str, purifier.stream(said)))
    assert whole.text == streamed == said
    for prompt in llm.asked:
        for secret in ("quill", "bluefin", "corp-mail"):
            assert secret not in str(prompt).lower()


def test_every_text_of_a_request_is_veiled() -> None:
    parts = [{"type": "text", "text": "Mail ada@corp"}, {"type": "text", "text": "-mail.com today"}]
    schema = {"type": "object", "properties": {"to": {"type": "string", "enum": [MAIL]}}}
    tool = {
        "type": "function",
        "function": {"name": "mail", "description": f"as {MAIL}", "parameters": schema},
    }
    found = asked(
        {"role": "system", "content": f"You serve Ada Quill, {MAIL}."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [call({"to": MAIL, "cc": [MAIL, "QUILL"]})]},
        {"role": "tool", "tool_call_id": "c1", "content": f"sent to {MAIL}"},
        "and for bluefin? 王小明是",
        tools=[tool],
    )
    assert isinstance(found.prompt, Chat)
    text = repr(found.prompt)
    assert not re.search("quill|corp-mail|bluefin|王小明", text, re.IGNORECASE)
    [surrogate] = {*re.findall(r"[\w.]+@example\.\w+", text)}
    arguments = json.loads(found.prompt.messages[2]["tool_calls"][0]["function"]["arguments"])
    assert arguments["to"] == arguments["cc"][0] == surrogate
    assert found.prompt.tools[0]["function"]["parameters"]["properties"]["to"]["enum"] == [surrogate]
    assert found.prompt.tools[0]["function"]["name"] == "mail"


def test_the_same_value_has_the_same_surrogate_over_turns_and_processes() -> None:
    first = asked(f"I am Ada Quill, {MAIL}.")
    later = asked(
        f"I am Ada Quill, {MAIL}.", {"role": "assistant", "content": "Hello Ada Quill"}, "Again, Ben"
    )
    assert isinstance(first.prompt, Chat)
    assert isinstance(later.prompt, Chat)
    assert first.prompt.messages[0] == later.prompt.messages[0]
    assert keeper().answer(Request("Ada Quill")).prompt == keeper().answer(Request("Ada Quill")).prompt
    drawn = {Gatekeeper(kinds=("email",), words=NAMES).answer(Request("Ada Quill")).prompt for _ in range(4)}
    assert len(drawn) > 1


def test_a_surrogate_that_the_user_has_written_stays_the_user_s() -> None:
    alone = keeper().answer(Request("Ada Quill")).prompt
    assert isinstance(alone, str)
    both = keeper().answer(Request(f"Ada Quill and {alone}"))
    assert isinstance(both.prompt, str)
    assert both.prompt.endswith(alone)
    assert restored(both.vault, both.prompt) == f"Ada Quill and {alone}"


def test_what_is_written_of_a_surrogate_is_restored() -> None:
    request = keeper().answer(Request(f"Ada Quill, {MAIL}"))
    assert isinstance(request.prompt, str)
    (first, last), mail = request.prompt.split(", ")[0].split(), request.prompt.split(", ")[1]
    for written, true in (
        (f"{first} {last}'s", "Ada Quill's"),
        (f"{first.upper()} {last.upper()}", "ADA QUILL"),
        (f"{first.lower()} {last.lower()}", "ada quill"),
        (f"{first}\u00a0{last}", "Ada Quill"),
        (f"Ms {last}, {first[0]}. {last}", "Ms Quill, A. Quill"),
        (f"*{first}*, {last.upper()}’s", "*Ada*, QUILL’s"),
        (mail.upper(), MAIL.upper()),
        (f"<{mail}>.", f"<{MAIL}>."),
        (f"{first}s {last}berg x{first} {last.lower()}", f"{first}s {last}berg x{first} {last.lower()}"),
    ):
        assert restored(request.vault, written) == true


def test_inside_json_values_are_escaped_as_deep_as_they_stand() -> None:
    stage = keeper(words=('Ada "Quux" O\'Hara\\',))
    request = stage.answer(Request('Ada "Quux" O\'Hara\\'))
    assert isinstance(request.prompt, str)
    true, surrogate = 'Ada "Quux" O\'Hara', request.prompt.rstrip("\\")
    for made in (lambda who: {"who": who}, lambda who: ["x", {"y": {"who": who + "!"}}]):
        written = json.dumps(made(surrogate))
        assert json.loads(
            restored(request.vault, f"I call [it] {{now}}: {written}").partition(": ")[2]
        ) == made(true)
    deep = json.dumps({"arguments": json.dumps({"who": surrogate})})
    assert json.loads(json.loads(restored(request.vault, deep))["arguments"]) == {"who": true}
    assert restored(request.vault, f"{json.dumps([1])} {surrogate}") == f"[1] {true}"


def test_stop_strings_and_grammars_are_veiled() -> None:
    schema = {"type": "object", "properties": {"to": {"const": MAIL}}, "required": ["to"]}
    found = asked("Ada Quill", sampling=Sampling(stop=("Quill", "###"), grammar=Grammar.json_schema(schema)))
    assert isinstance(found.prompt, Chat)
    assert found.sampling.stop == (found.prompt.messages[0]["content"].split()[1], "###")
    assert found.sampling.grammar is not None
    assert MAIL not in found.sampling.grammar.text
    assert found.vault is not None
    pattern = asked("x", sampling=Sampling(grammar=Grammar("regex", "(ada@corp-mail\\.com|none)")))
    assert pattern.sampling.grammar is not None
    assert re.fullmatch(r"\([a-z]+\.[a-z]+@example\.\w+\|none\)", pattern.sampling.grammar.text)


def test_no_answer_holds_a_value_and_no_certificate_says_what() -> None:
    purifier, _ = echoing(keeper())
    [answer] = purifier.generate([f"Ada Quill, {MAIL}"], errors="raise")
    assert not re.search("quill|corp-mail", answer.certificate.text, re.IGNORECASE)
    [draft] = answer.certificate.body["drafts"]
    assert draft["certificate"]["method"]["constraints"] == [{"count": 2, "kind": "private_values"}]
    assert [each["name"] for each in answer.certificate.body["segments"] if each["name"]] == [
        "word 1",
        "email 1",
    ]


def test_a_request_without_private_values_is_as_it_was() -> None:
    request = Request("The king had a daughter.")
    assert keeper().answer(request) is request


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("tax file number: 276&nbsp;879&nbsp;061", "276&nbsp;879&nbsp;061"),
        ("My phone is 07700 900007", "x07700%20900007y"),
        ("MAC=83-D8-3C-96-7D-85", "x83\u2010D8\u20103C\u201096\u20107D\u201085y"),
    ],
)
def test_a_value_is_replaced_in_every_text_however_it_is_escaped_there(first: str, again: str) -> None:
    """Where no word said what it was, an escaped value stayed: it was looked for as it is meant alone."""
    found = keeper(kinds=None).answer(
        Request(Chat(tuple({"role": "user", "content": t} for t in (first, again))))
    )
    assert isinstance(found.prompt, Chat)
    text = plain(str(found.prompt.messages[1]["content"]))
    [value] = [each for each in ("276 879 061", "07700 900007", "83-D8-3C-96-7D-85") if each in plain(first)]
    assert value not in text


def test_a_value_across_parts_beside_an_image_is_replaced() -> None:
    """One part that is no text kept all others from being read as one."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    parts = [*({"type": "text", "text": each} for each in ("Mail ada@corp", "-mail.com now")), image]
    found = asked({"role": "user", "content": parts})
    assert "-mail" not in str(found.prompt)
    assert image in found.prompt.messages[0]["content"]  # type: ignore[union-attr]


def test_cited_texts_are_veiled_and_certificates_hold_a_keyed_digest_of_them() -> None:
    """Certificates held the id and the plain SHA-256 of a cited text with private values in both."""
    purifier, _ = echoing(keeper())
    text = f"Ada Quill <{MAIL}>"
    with citing({f"mail of {MAIL}": text, "page 7": "The sea is salt."}):
        [answer] = purifier.generate([text], errors="raise")
    context = answer.certificate.body["drafts"][0]["certificate"]["context"]
    assert MAIL not in answer.certificate.text
    assert hashlib.sha256(text.encode()).hexdigest() not in answer.certificate.text
    assert context[1] == {"id": "page 7", "sha256": hashlib.sha256(b"The sea is salt.").hexdigest()}


def test_a_stage_behind_it_finds_cited_texts_in_the_prompt() -> None:
    """`redacted` refused each request: the prompt had surrogates, and the cited text had not."""
    text = f"Ada Quill <{MAIL}>"
    given = Request(f"File: {text}. Who?", sources=(("file", text),))
    found = Redacted(private=("file",)).answer(keeper().answer(given))
    assert found.prompt == "File: [document]. Who?"


def test_what_the_llm_is_shown_is_veiled_alike() -> None:
    found = keeper().answer(Request("I am Ada Quill").showing("Someone asks Ada Quill"))
    assert isinstance(found.prompt, str)
    assert found.shown == found.prompt.replace("I am", "Someone asks")


@dataclass(frozen=True)
class Again(Stage):
    """Asks about the draft that it was given, and keeps what it has read."""

    read: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> Any:
        draft = yield request
        self.read.append(draft.text)
        draft = yield request.asking(f"Say again: {draft.text}")
        self.read.append(draft.text)
        return draft


def test_a_stage_around_it_reads_true_values_and_one_inside_it_surrogates() -> None:
    said = f"Ada Quill, {MAIL}"
    for outside in (True, False):
        again = Again()
        purifier, llm = echoing(*((again, keeper()) if outside else (keeper(), again)))
        [answer] = purifier.generate([said], errors="raise")
        assert answer.text == f"Say again: {said}"
        assert (said in again.read[0], said in again.read[1]) == (outside, outside)
        assert not re.search("quill|corp-mail", repr(llm.asked), re.IGNORECASE)
        assert len({re.findall(r"[\w.]+@[\w.]+", str(each))[0] for each in llm.asked}) == 1


def test_token_ids_are_refused_and_so_is_a_second_vault() -> None:
    purifier, llm = echoing(keeper())
    with pytest.raises(PromptError, match="token ids have no text"):
        purifier.generate([(1, 2)])
    assert not llm.asked
    with pytest.raises(RefusedError, match="one gatekeeper"):
        keeper().answer(keeper().answer(Request("Ada Quill")))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"libraries": ["nosuchlibrary"]}, "nosuchlibrary"),
        ({"slm_reads": "truth"}, "slm_reads must be 'surrogate'"),
        ({"kinds": "email"}, "a list of kinds"),
        ({"patterns": {"x": 1}}, "a table of regular expressions"),
        ({"patterns": {"x": "("}}, "no regular expression"),
        ({"words": [" "]}, "a list of texts"),
        ({"kinds": (), "words": ""}, "leaves nothing to look for"),
        ({"key_env": "PURIFY_NO_SUCH_KEY"}, "openssl rand"),
        ({"key_env": 7}, "a text"),
    ],
)
def test_a_bad_option_is_an_error_when_it_is_made(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        keeper(**keys)


def test_a_key_that_is_not_kept_and_names_without_a_tagger_are_remarked() -> None:
    remarks = " ".join(Gatekeeper(words=NAMES).remarks())
    assert "no key_env" in remarks
    assert "no tagger" in remarks
    assert "after every mask and check" in remarks
    assert "no key_env" not in " ".join(keeper().remarks())


def test_an_operator_s_kind_keeps_its_form() -> None:
    stage = keeper(patterns={"staff": r"EMP-\d{6}"})
    found = stage.answer(Request("EMP-123456")).prompt
    assert re.fullmatch(r"EMP-\d{6}", str(found))
    assert found != "EMP-123456"


@pytest.mark.parametrize(
    "said",
    [
        "card \uff14539 1488 0343 6467, 4539\u202f1488 0343 6467",
        "Tel (+34 643 213 614) was wrong",  # the bracket is the text's
        "aadhaar number (6086\u00a05881\u00a01146)",
        "postgres://ada:hunter2@db.example.org:5432/app and hunter2, password: hunter2",
    ],
)
def test_what_stands_around_a_value_stays(said: str) -> None:
    found = Gatekeeper().answer(Request(said))
    assert found.prompt != said
    assert plain(restored(found.vault, str(found.prompt))) == plain(said)  # spaces are those of ASCII again


@pytest.mark.slow
@pytest.mark.alone
def test_rewriting_takes_less_time_than_finding() -> None:
    """Beside the finders, of CPU time; and the values' index for a vocabulary, once a request."""
    keeper, prose = Gatekeeper(words=NAMES), " ".join(testbed.attacks().clean) * 40
    private = [sample.text for kind in KINDS for sample in samples(kind, 2)]
    found = rest = index = 0.0
    vocabulary = both()[0].vocabulary
    for at in range(-5, 40):
        text = f"{prose[at * 50 + 250 :][:3600]} Ada Quill, Ms Quill {' '.join(private[at % 30 :][:5])}"
        times = [thread_time()]
        keeper._finder.find(text)
        times.append(thread_time())
        request = keeper.answer(Request(text))
        times.append(thread_time())
        request.never[0].follower(vocabulary)
        times.append(thread_time())
        if at >= 0:
            found, rest = found + times[1] - times[0], rest + times[2] - 2 * times[1] + times[0]
            index += times[3] - times[2]
    print(
        f"{rest / 40 / 4 * 1e3:.2f} ms per 1,000 characters beside {found / 40 / 4 * 1e3:.2f} of the finders"
    )
    print(f"index {index / 40 * 1e3:.2f} ms a request")
    assert rest / 40 / 4 < 4e-3  # seconds; half of it where nothing else runs
    assert index / 40 < 20e-3


class TestGatekeeper(StageConformance):
    def stage(self) -> Stage:
        return keeper()
