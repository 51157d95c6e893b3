"""`redacted`: what the LLM alone read is bounded, and the SLM's prompt is the same for every secret."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from purify_hooks.private.gatekeeper import Gatekeeper
from purify_hooks.private.redacted import Redacted
from purify_hooks.private.sketch import Sketch
from purify_hooks.stages.cascade import Cascade
from purify_hooks.stages.decompose import Decompose
from purify_hooks.stages.ensemble import Ensemble
from purify_hooks.stages.guardian import Guardian
from purify_hooks.stages.never import Never
from purify_hooks.stages.rewrite import Rewrite
from purify_plugins import Chat, ConfigError, PromptError, Purifier, RefusedError, Sampling
from purify_plugins.certificates import cited, citing, recompute, recompute_both, verify
from purify_plugins.certificates.explain_stages import explained
from purify_plugins.configuration.chain import stage
from purify_plugins.configuration.config import read_config
from purify_plugins.errors import CertificateError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.stages import Stage
from purify_plugins.stages.request import Request
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import StageConformance, ToySource
from tests.stages.branches import Branches
from tests.toys import AB, BYTES, Watched

SECRETS = ["".join(each) for each in product("ab", repeat=2)]
LENGTH = 3
ANSWERS = ["".join(each) for each in product("ab", repeat=LENGTH)]
POLICIES: Sequence[dict[str, Any]] = (
    {"name": "capped", "cap": 1.0, "total": 1.0},
    {"name": "windowed", "cap": 0.8, "window": 2, "budget": 1.0},
    {"name": "balanced", "budget": 1.0, "drain": 0.5},
    {"name": "balanced", "budget": 1.0, "gap": 0.1, "gap_limit": 0.3, "memory": 2.0, "hedge": 0.01},
)


class TestRedacted(StageConformance):
    def stage(self) -> Stage:
        return Redacted(private=("system", "page 7"), patterns={"pin": "[0-9]{4}"})


def reads(stage: Redacted, prompt: Any) -> tuple[Any, Any]:
    """What the SLM and the LLM read."""
    asked = stage.answer(Request(prompt))
    return asked.prompt, asked.prompt if asked.shown is None else asked.shown


# The bound, enumerated


@dataclass(frozen=True)
class Telling(ToySource):
    """An LLM that wants to say the secret it reads: two letters from the third of its prompt on."""

    sure: float = 1.0

    def logits(self, tokens: Sequence[int]) -> Tensor:
        row = torch.tensor([0.5, 0.5, 1e-12])
        written = len(tokens) - 6
        if 0 <= written < 2:
            wanted = tokens[2 + written]
            row[wanted], row[1 - wanted] = self.sure, max(1 - self.sure, 1e-12)
        return row.log()


@dataclass(frozen=True)
class Copying(ToySource):
    """An SLM that repeats its prompt from the third letter on, mostly."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        row = torch.full((3,), 0.2)
        row[tokens[min(2 + max(len(tokens) - 6, 0), len(tokens) - 1)]], row[2] = 0.8, 1e-12
        return row.log()


def chances(policy: dict[str, Any], sure: float, secret: str, stages: Sequence[Stage]) -> dict[str, float]:
    """How likely every answer is, with this secret in the prompt."""
    pair = Telling(AB, 0, sure=sure), Copying(AB, 0)
    purifier = Purifier(*pair, load_plugins().policy(policy), walk="lockstep", stages=stages)
    prompt = f"ab<private>{secret}</private>ab" if stages else f"ab{secret}ab"
    found = dict.fromkeys(ANSWERS, 0.0)
    branches = Branches()
    with branches.taking_over():
        for chance, [answer] in branches.runs(
            lambda: purifier.generate([prompt], Sampling(max_tokens=LENGTH, ignore_eos=True))
        ):
            found[answer.text] += chance
    return found


def slm_alone() -> dict[str, float]:
    """What the SLM says by itself to the prompt without the secret."""
    found = {}
    for answer in ANSWERS:
        ids = ["ab".index(each) for each in "abab" + answer]
        rows = [torch.softmax(Copying(AB, 0).logits(ids[:at])[:2].double(), -1) for at in range(4, len(ids))]
        found[answer] = math.prod(float(row[token]) for row, token in zip(rows, ids[4:], strict=True))
    return found


def begins(chances: dict[str, float], passage: str) -> float:
    return sum(chance for answer, chance in chances.items() if answer.startswith(passage))


@pytest.mark.parametrize(
    ("policy", "sure"), [*zip(POLICIES, (1.0, 1.0, 0.6, 0.6), strict=True), (POLICIES[2], 1.0)], ids=str
)
def test_no_llm_that_reads_the_secret_says_more_of_it_than_is_promised(
    policy: dict[str, Any], sure: float
) -> None:
    """For every secret and passage; and, where whole answers are bounded, of all that can be guessed."""
    alone, rule = slm_alone(), load_plugins().policy(policy)
    told = {secret: chances(policy, sure, secret, [Redacted(instead="")]) for secret in SECRETS}
    for found in told.values():
        assert sum(found.values()) == pytest.approx(1)
        for passage in {answer[:length] for answer in ANSWERS for length in range(1, LENGTH + 1)}:
            q = begins(alone, passage)
            most = rule.allowance(len(passage), -math.log(q))
            assert begins(found, passage) <= q * math.exp(most) * (1 + 1e-6), passage
    assert told["aa"] != told["bb"], "the LLM's reading has no effect, and nothing was tested"
    if rule.guarantee == "path":
        right = sum(max(found[answer] for found in told.values()) for answer in ANSWERS) / len(SECRETS)
        assert 1 / len(SECRETS) < right <= math.exp(1.0) / len(SECRETS) * (1 + 1e-6)


def test_without_redaction_the_same_llm_says_more() -> None:
    """The bound above is of the SLM that has not read the secret, and not idle."""
    alone = slm_alone()
    found = chances(POLICIES[0], 1.0, "bb", [])
    assert begins(found, "bb") > math.exp(1.0) * begins(alone, "bb")


# What the SLM reads depends on no secret

TEXTS = st.text("ab <>/", max_size=6).filter(
    lambda text: "<private>" not in text and "</private>" not in text
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4), st.sampled_from(["", "[{kind}]"]))
def test_the_slms_prompt_is_the_same_for_every_secret(
    parts: list[tuple[str, str, str]], instead: str
) -> None:
    stage = Redacted(private=("system",), instead=instead)

    def prompt(which: int) -> Chat:
        said = "x" + "".join(f"{part[0]}<private>!{part[which]}</private>" for part in parts)
        return Chat(({"role": "system", "content": parts[0][which]}, {"role": "user", "content": said}))

    one, other = (reads(stage, prompt(which)) for which in (1, 2))
    assert one[0] == other[0]
    whole = "x" + "".join(f"{public}!{secret}" for public, secret, _ in parts)
    assert one[1].messages[1]["content"] == whole, "the LLM reads all but the markers"


@pytest.mark.parametrize(
    "text",
    [
        *("<private>a", "a</private>", "<private>a<private>b</private>", "a</private>b<private>"),
        *("<PRIVATE>a", "&lt;private&gt;a", r"\u003cprivate\u003ea", "<pri<private></private>vate>a"),
    ],
)
def test_markers_that_do_not_pair_are_refused(text: str) -> None:
    """A text between them may have brought one along: where the private part ends cannot be told."""
    with pytest.raises(RefusedError) as error:
        Redacted().answer(Request(f"Hello. {text} Goodbye."))
    assert "Goodbye" not in str(error.value)


def test_markers_that_programs_escaped_are_markers() -> None:
    """Go and .NET write `<` in JSON as an escape: a tool's private result was read by both models."""
    said = r'{"who": "\u003cprivate\u003eAda\u003c/PRIVATE\u003e"} &lt;private&gt;Eva&lt;/private&gt;'
    slm, llm = reads(Redacted(), said)
    assert slm == '{"who": "[private]"} [private]'
    assert llm == '{"who": "Ada"} Eva'


def test_labels_that_overlap_are_one_private_part_and_what_stands_outside_is_read() -> None:
    stage = Redacted(kinds=("email",), words=("Ada", "12"), patterns={"badge": "B-[0-9]+"})
    slm, llm = reads(stage, "<private>I am ada@corp-mail.com</private>, B-123. ada@corp-mail.com or B 123?")
    assert slm == "[private], [badge]. [email] or B 123?"
    assert llm == "I am ada@corp-mail.com, B-123. ada@corp-mail.com or B 123?"


def test_a_value_that_parts_of_a_message_cut_is_taken_out() -> None:
    """A template joins the parts, so the SLM read the value whole; each part alone has no address."""
    parts = [{"type": "text", "text": each} for each in ("Mail ada@corp", "-mail.com today")]
    _, slm, llm = reads_parts(Redacted(kinds=("email",)), parts)
    assert slm == "Mail [email] today"
    assert llm == "Mail ada@corp-mail.com today"


def reads_parts(stage: Redacted, parts: Any) -> tuple[Request, str, str]:
    """The request that is asked, and the joined content that the SLM and the LLM read."""
    asked = stage.answer(Request(Chat(({"role": "user", "content": parts},))))
    read = []
    for prompt in (asked.prompt, asked.shown):
        assert isinstance(prompt, Chat)
        read.append("".join(part["text"] for part in prompt.messages[0]["content"]))
    return asked, read[0], read[1]


@pytest.mark.parametrize("stage", [Redacted, Sketch, Gatekeeper])
def test_libraries_are_named_and_an_absent_one_says_what_to_install(stage: Any) -> None:
    with pytest.raises(ConfigError, match="unknown library 'presidia'"):
        stage(libraries=("presidia",))
    if find_spec("phonenumbers") is None:
        with pytest.raises(ConfigError, match="pip install"):
            stage(libraries=("phonenumbers:GB",))
    else:
        assert stage(libraries=("phonenumbers:GB",)).libraries == ("phonenumbers:GB",)


@pytest.mark.skipif(find_spec("phonenumbers") is None, reason="needs the extra privacy")
def test_what_a_library_finds_is_taken_out() -> None:
    text = "Ring 020 7946 0958, or 7"
    assert Redacted(libraries=("phonenumbers:GB",)).answer(Request(text)).prompt == "Ring [phone], or 7"
    assert Sketch(libraries=("phonenumbers:GB",))._test.leaks("What of 020 7946 0958?", ())


def test_a_marker_that_parts_of_a_message_cut_is_refused() -> None:
    parts = [{"type": "text", "text": each} for each in ("Find <pri", "vate>Ada</private>", "</private>")]
    for cut in (parts[:2], [parts[0], {**parts[1], "text": "vate>Ada"}]):
        with pytest.raises(RefusedError, match="do not pair"):
            Redacted().answer(Request(Chat(({"role": "user", "content": cut},))))


def test_messages_keep_their_roles_calls_their_names_and_nothing_else() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"who": "Ada"}'}}
    messages = (
        {"role": "system", "name": "Ada_Q", "content": "The key is 1234."},
        {"role": "user", "content": [{"type": "text", "text": "Find <private>Ada</private>"}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "find", "tool_call_id": "1", "content": "Ada: 5678"},
    )
    stage = Redacted(private=("system", "tool"), words=("Ada",), instead="")
    slm, llm = reads(stage, Chat(messages))
    assert "Ada" not in str(slm)
    assert "1234" not in str(slm)
    assert slm.messages[2]["name"] == "find"
    named, _ = reads(Redacted(private=("system",)), Chat(messages[:1]))
    assert named == Chat(({"role": "system", "content": "[system]"},)), "the name of who wrote it is private"
    assert "5678" not in str(slm)
    assert [each["role"] for each in slm.messages] == ["user", "assistant", "tool"]
    assert json.loads(slm.messages[1]["tool_calls"][0]["function"]["arguments"]) == {"who": ""}
    assert llm.messages[1]["content"][0]["text"] == "Find Ada"
    assert llm.messages[3] == messages[3]


def test_a_cited_text_is_private_by_its_id_and_leaves_no_plain_digest() -> None:
    page, other = "Ada lives in Elm Street.", "The library is open."
    pair = Watched(ToySource(BYTES, 1)), Watched(ToySource(BYTES, 2))
    purifier = Purifier.load(*pair, "capped", stages=[Redacted(private=("page 7",))])
    with citing({"page 7": page, "page 8": other}):
        [answer] = purifier.generate(f"{page}\n{other}\nWho?", Sampling(max_tokens=4, seed=0))
    assert bytes(pair[1].sessions[0].prompts[0].tokens).decode() == f"[document]\n{other}\nWho?"
    plain = Purifier.load(*pair, "capped", stages=[Redacted()])
    with citing({"page 7": page, "page 8": other}):
        [known] = plain.generate(f"{page}\n{other}\nWho?", Sampling(max_tokens=4, seed=0))
    listed, before = (
        [each["sha256"] for each in one.certificate.body["drafts"][0]["certificate"]["context"]]
        for one in (answer, known)
    )
    assert listed[0] != before[0]
    assert listed[1] == before[1]
    with citing({"page 7": "Another text."}), pytest.raises(RefusedError, match="page 7"):
        purifier.generate("Who?", Sampling(max_tokens=4))


def test_a_cited_text_that_a_message_s_parts_cut_is_refused() -> None:
    """It stood in the joined parts, so it counted as found; none of it was taken out, and the SLM read it."""
    text = "Diagnosis: ZQXJ."
    cut = [{"type": "text", "text": each} for each in (text[:12], text[12:] + " So?")]
    messages = [{"role": "user", "content": cut}]
    for before in ([], [{"role": "user", "content": text}]):
        request = Request(Chat((*before, *messages)), sources=(("file", text),))
        with pytest.raises(RefusedError, match="does not hold the private text 'file'"):
            Redacted(private=("file",)).answer(request)


def test_a_cited_text_with_a_private_part_leaves_no_plain_digest() -> None:
    """Only those that `private` names did; the others' SHA-256 told a short secret to who tried them all."""
    texts = {"a": "The code is <private>4821</private>.", "b": "ada@corp-mail.com", "c": "I am public."}
    texts["d"] = "of the system"
    system = {"role": "system", "content": "All of the system is secret."}
    user = {"role": "user", "content": " ".join([*texts.values()][:3])}
    stage = Redacted(kinds=("email",), private=("system",))
    with citing(texts):
        asked = stage.answer(Request(Chat((system, user)), cited=cited(), sources=(*texts.items(),)))
    plain = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    assert [name for name, digest in asked.cited if digest == plain[name]] == ["c"]


def test_no_repr_and_no_error_quotes_a_list() -> None:
    for made in (
        Redacted(words=("Quill",)),
        Gatekeeper(words=("Quill",)),
        Never(texts=("Quill",)),
        Guardian(words=("Quill",)),
    ):
        assert "Quill" not in repr(made)
    for make in (
        lambda: Redacted(words=("Quill", " ")),
        lambda: Gatekeeper(words=("Quill", " ")),
        lambda: Never(texts=("Quill", " ")),
        lambda: Guardian(words=("Quill", " ")),
    ):
        with pytest.raises(ConfigError) as error:
            make()
        assert "Quill" not in str(error.value)


def test_all_private_is_refused_and_token_ids_too() -> None:
    with pytest.raises(RefusedError, match="nothing to read"):
        Redacted(instead="").answer(Request("<private>a</private>"))
    with pytest.raises(PromptError):
        Redacted().answer(Request((1, 2, 3)))
    assert Redacted().answer(Request("a")) == Request("a")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"markers": ("<a>",)}, "markers"),
        ({"markers": ("<a>", "<A>")}, "markers"),
        ({"private": "system"}, "private"),
        ({"patterns": {"pin": "("}}, "regular expression"),
        ({"instead": 3}, "instead"),
    ],
)
def test_options_say_what_is_wrong(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Redacted(**options)


# Chains


@pytest.mark.parametrize(
    "chain",
    [
        (Cascade(1e-9), Redacted()),
        (Cascade(1.0), Redacted()),
        (Redacted(), Cascade(1.0)),
        (Redacted(), Rewrite(longest_change=1.0)),
        (Rewrite(longest_change=1.0), Redacted()),
        (Redacted(), Ensemble(2, select="aggregate")),
        (Decompose(2), Redacted()),
        (Redacted(), Decompose(2)),
    ],
)
def test_the_slm_reads_the_secret_in_no_chain(chain: tuple[Stage, ...]) -> None:
    pair = Watched(ToySource(BYTES, 1)), Watched(ToySource(BYTES, 2))
    purifier = Purifier.load(*pair, "capped", stages=chain)
    with suppress(RefusedError):  # of a correction by a toy
        purifier.generate("The key is <private>ZQXJ</private>. Hi!", Sampling(max_tokens=6, seed=1))
    llm, slm = (
        [bytes(t for t in prompt.tokens if t < 256) for each in one.sessions for prompt in each.prompts]
        for one in pair
    )
    assert slm
    assert not [each for each in slm if b"ZQXJ" in each]
    assert not llm or any(b"ZQXJ" in each for each in llm)


def test_the_certificate_is_of_the_prompt_that_the_slm_read() -> None:
    pair = ToySource(BYTES, 1), ToySource(BYTES, 2)
    purifier = Purifier.load(*pair, "capped", stages=[Redacted()])
    [answer] = purifier.generate("The key is <private>ZQXJ</private>.", Sampling(max_tokens=6, seed=1))
    certificate = answer.certificate
    verify(certificate, load_plugins())
    assert recompute(certificate, pair[1]) < 1e-3
    with pytest.raises(CertificateError, match="another prompt"):
        recompute_both(certificate, *pair, load_plugins())
    shown = ["The key is 4821.", "The key is ZQXJ."]
    assert recompute_both(certificate, *pair, load_plugins(), shown=shown) < 1e-3
    with pytest.raises(CertificateError, match="as `shown`"):
        recompute_both(certificate, *pair, load_plugins(), shown=shown[:1])
    [draft] = certificate.body["drafts"]
    assert bytes(draft["certificate"]["prompt"]).decode() == "The key is [private]."
    assert certificate.guarantee == "path"
    told = "\n".join(explained(certificate, None))
    assert "the LLM read another prompt than the SLM" in told
    assert "ZQXJ" not in told + certificate.text


def test_four_lines_of_a_configuration_say_what_is_private(tmp_path: Path) -> None:
    """And a private word that stands elsewhere too is not taken out there: that would answer guesses."""
    (tmp_path / "names.txt").write_text("Quill\n", "utf-8")
    (tmp_path / "purify.toml").write_text(
        f"""
        [llm]
        model = {json.dumps(str(LLM))}
        [slm]
        model = {json.dumps(str(SLM))}
        [[stage]]
        name = "redacted"
        private = ["system"]
        patterns = {{ badge = "B-[0-9]+" }}
        words = "names.txt"
        """,
        "utf-8",
    )
    [table] = read_config(tmp_path / "purify.toml").stage
    made = stage(load_plugins(), table)
    assert isinstance(made, Redacted)
    assert not made.remarks()
    slm, _ = reads(made, "<private>Ada</private> Quill has B-12. Is it Ada?")
    assert slm == "[private] [word] has [badge]. Is it Ada?"
    assert "Quill" not in json.dumps(made.public())
    assert "nothing else" in Redacted().remarks()[0]
    assert "sytem in `private` is no role" in Redacted(private=("sytem", "user")).remarks()[0]
