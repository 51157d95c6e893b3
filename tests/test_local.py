"""The transformers source: every architecture alike, and nothing of a stranger's repository is run."""

from __future__ import annotations

import copy
import itertools
import json
import math
import shutil
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from purify_hooks.local import onednn, packed, session
from purify_hooks.local.kv_cache import growing_cache, truncate
from purify_hooks.local.loading import check_files, eos_ids, file_digests, find_model
from purify_hooks.local.packed import PackedLinear
from purify_hooks.local.source import LoadedSource, LocalSource
from purify_plugins import Chat, ConfigError, ModelError, PromptError, Sampling, SourceError
from purify_plugins.decode.replay import replay
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import SourceConformance
from purify_plugins.tokenizers.prompt_encoder import transcript
from tests.toys import both, few, pair, real

CHAT = Chat(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}))
PROMPTS = ("A", "Once upon a time there was a king", "The fox")


@cache
def tiny(kind: str, **options: Any) -> LocalSource:
    """A random model of two small layers that reads the test bed's tokens."""
    import transformers

    shared = {"vocab_size": 2048, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = {**small, "intermediate_size": 32, "num_key_value_heads": 1, "max_position_embeddings": 64}
    sizes: dict[str, tuple[str, dict[str, Any]]] = {
        "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
        "mistral": ("Mistral", {**llama, "sliding_window": 4}),
        "opt": ("OPT", {**small, "ffn_dim": 32, "max_position_embeddings": 64, "word_embed_proj_dim": 16}),
        "bloom": ("Bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
        "mamba": ("Mamba", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
    }
    name, sizes_ = sizes[kind]
    config = getattr(transformers, f"{name}Config")(**{**shared, **sizes_, **options})
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # so that contexts matter
    return LocalSource(model, both()[0].tokenizer, kind)


# What every source must do


class TestTheTestBedsLLM(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return both()[0]


class TestTheTestBedsSLM(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return both()[1]


class TestGPT2(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return tiny("gpt2")


class TestASlidingWindow(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return tiny("mistral")


class TestASlidingWindowWithinEveryPrompt(SourceConformance):
    """After an uneven rewind, hidden columns used to push what a row still sees out of its window."""

    prompts = (PROMPTS[1], PROMPTS[1] + " sons", "The fox and the grapes")

    def source(self) -> LocalSource:
        return tiny("mistral", sliding_window=3)


class TestOPT(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return tiny("opt")


class TestBloom(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return tiny("bloom")


class TestAStateSpace(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return tiny("mamba")


class TestAPaddedVocabulary(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return tiny("gpt2", vocab_size=2112)


KINDS = ["gpt2", "mistral", "opt", "bloom", "mamba"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_models_own(kind: str) -> None:
    source = tiny(kind)
    answer = torch.tensor([[5, 6, 7, 8, 9, 10]] * len(PROMPTS))
    session, first = source.open(PROMPTS)
    read = torch.cat([first[:, None], session.extend(answer[:, :1]), session.extend(answer[:, 1:])], dim=1)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([[*source.encode(prompt), *answer[row].tolist()]])
        with torch.inference_mode():
            expected = source.model(ids, use_cache=False).logits[0, -7:]
        near = 1e-3 if kind == "mamba" else 1e-4  # a state adds up in another order, token by token
        torch.testing.assert_close(read[row], expected, atol=near, rtol=near)


def test_which_models_read_continuations_side_by_side() -> None:
    """Bloom counts positions from columns, Mistral's window counts columns, Mamba has none."""
    assert [kind for kind in KINDS if tiny(kind).branches] == ["gpt2", "opt"]
    assert both()[0].branches


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_continuations_side_by_side_are_read_as_each_alone(kind: str) -> None:
    """Tokens 5 and 6 follow the prompt, 7 follows 5, 8 follows 6; then 9 follows 6 and 8."""
    source = tiny(kind)
    session, _ = source.open(PROMPTS)
    rows = len(PROMPTS)
    seen = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]).bool().expand(rows, -1, -1)
    read = session.branch(torch.tensor([[5, 6, 7, 8]] * rows), seen)
    session.select(torch.tensor([[1, 3]] * rows))
    last = session.branch(torch.tensor([[9]] * rows), torch.ones(rows, 1, 3, dtype=torch.bool))
    for run, found in {(5,): read[:, 0], (6,): read[:, 1], (5, 7): read[:, 2], (6, 8, 9): last[:, 0]}.items():
        alone, _ = source.open(PROMPTS)
        expected = alone.extend(torch.tensor([run] * rows))[:, -1]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1, 2, 3, 5])
def test_prompts_are_read_and_scored_alike_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, kind: str, block: int
) -> None:
    """A row that is all padding in its first blocks must not spoil what follows."""
    source = tiny(kind)
    for scored in (0, 2, 99):
        whole = source.open(PROMPTS, scored)
        monkeypatch.setattr(session, "BLOCK", block)
        blocks = source.open(PROMPTS, scored)
        monkeypatch.undo()
        torch.testing.assert_close(blocks[1], whole[1], atol=1e-4, rtol=1e-4)
        for one, other in zip(blocks[0].prompts, whole[0].prompts, strict=True):
            assert one.tokens == other.tokens
            assert len(one.logprobs) == min(scored, len(one.tokens) - 1)
            torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-4, rtol=1e-4)


def test_a_prompt_that_brings_its_own_beginning_is_not_given_another() -> None:
    source = both()[0]
    first = source.tokenizer.bos_token
    assert source.encode(f"{first}hi") == source.encode("hi")
    assert source.encode(f"{first}{first}hi")[:2] == source.encode(f"{first}")[:1] * 2


@pytest.mark.parametrize("kind", ["gpt2", "opt", "mistral"])
def test_a_row_whose_context_is_full_does_not_stop_the_others(kind: str) -> None:
    """GPT-2 has no 65th place to give: a full row used to fail the whole batch while it waited."""
    source = tiny(kind)
    long = tuple(range(5, 65))
    purifier = pair(source, source, {"name": "geometric"})
    full, other = purifier.generate([long, (5, 6)], few(20))
    assert (len(full.tokens), full.finish_reason, len(other.tokens)) == (4, "length", 20)
    assert other.tokens == purifier.generate((5, 6), few(20, seed=1))[0].tokens


def test_a_padded_model_is_cut_to_its_tokenizer() -> None:
    source = tiny("gpt2", vocab_size=2112)
    assert source.open(["A"])[1].shape == (1, 2048)


@pytest.mark.parametrize("size", [2049, 2304, 2047, 2000])
def test_a_model_wider_or_narrower_than_its_tokenizer_keeps_its_cache(size: int) -> None:
    """Embeddings are often padded (Qwen, Pythia, Phi): each token was a reading of the whole text."""
    source = tiny("gpt2", vocab_size=size)
    assert isinstance(source.open(["A"])[0], session.MaskedSession)


def test_a_model_narrower_than_its_tokenizer_gives_the_rest_nothing() -> None:
    """Tokens are often added to a tokenizer alone; they are never drawn, and cannot be read."""
    source = tiny("gpt2", vocab_size=2000)
    session, first = source.open(["A"])
    assert first.shape == (1, 2048)
    assert first[:, 2000:].isneginf().all()
    assert first[:, :2000].isfinite().all()
    with pytest.raises(SourceError, match="'gpt2' failed while reading: "):
        session.extend(torch.tensor([[2047]]))
    answer = pair(source, both()[1], {"name": "geometric"}).generate("A", few())[0]
    assert max(answer.tokens) < 2000


def test_rewinding_to_the_start_and_back_reads_the_same() -> None:
    session, _ = both()[1].open(PROMPTS)
    tokens = torch.tensor([[7, 8, 9]] * 3)
    before = session.extend(tokens)
    session.rewind(torch.tensor([0, 0, 0]))
    torch.testing.assert_close(session.extend(tokens), before, atol=1e-4, rtol=1e-4)
    session.rewind(torch.tensor([0, 3, 1]))
    session.rewind(torch.tensor([0, 0, 0]))
    torch.testing.assert_close(session.extend(tokens), before, atol=1e-4, rtol=1e-4)


def test_replaying_an_answer_gives_its_records() -> None:
    purifier = real("windowed")
    answers = purifier.generate(list(PROMPTS), few(9))
    replayed = replay(purifier, PROMPTS, [answer.tokens for answer in answers], few(9))
    for answer, steps in zip(answers, replayed, strict=True):
        for one, other in zip(answer.steps, steps, strict=True):
            assert one.id == other.id
            torch.testing.assert_close(one[1:6], other[1:6], atol=1e-3, rtol=1e-3)


# The cache


def test_a_growing_layer_is_transformers_own_cache() -> None:
    ours, theirs = growing_cache(), DynamicCache()
    for columns in (3, 1, 1, 90, 200, 1):
        keys, values = torch.randn(2, 1, 2, columns, 4).unbind(0)
        for layer in (0, 1):
            one, other = ours.update(keys, values, layer), theirs.update(keys, values, layer)
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_a_growing_layer_forgets() -> None:
    cache_, keys = growing_cache(), torch.randn(1, 2, 9, 4)
    cache_.update(keys, keys, 0)
    cache_.update(keys, keys, 2)  # layer 1 shares another's and is never filled
    truncate(cache_, 4)
    assert cache_.get_seq_length() == 5
    again, _ = cache_.update(keys[:, :, :2], keys[:, :, :2], 0)
    assert torch.equal(again, torch.cat([keys[:, :, :5], keys[:, :, :2]], dim=2))


# Prompts


def test_ids_stand_for_themselves() -> None:
    assert both()[0].encode((5, 6)) == (5, 6)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "the prompt is empty; give at least one token of text"),
        ((), "the prompt is empty; give at least one token of text"),
        (Chat(()), "the prompt is empty; give at least one token of text"),
        ((1,) * 512, "the prompt has 512 tokens, but '.*' reads 512 with the answer; shorten it"),
        ("word " * 600, r"the prompt has \d+ tokens, but '.*' reads 512 with the answer; shorten it"),
        ((2048,), "the prompt holds token 2048, which '.*' does not have"),
        ((-1, 5), "the prompt holds token -1, which '.*' does not have"),
        ("half a \ud83d", "the prompt is not valid Unicode; replace its lone surrogates"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(prompt: Any, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        both()[1].open([prompt])


def test_the_longest_prompt_leaves_room_for_one_token() -> None:
    answer = real().generate((1,) * 511, few(5))[0]
    assert (len(answer.tokens), answer.finish_reason) == (1, "length")


def test_a_model_without_a_template_reads_a_transcript() -> None:
    assert transcript(CHAT) == "System: Be brief.\n\nUser: Hello\n\nAssistant:"
    slm = both()[1]
    assert slm.encode(CHAT) == slm.encode(transcript(CHAT))
    assert real().chat(CHAT.messages, few()).tokens == real().generate(transcript(CHAT), few())[0].tokens


# A repository is a stranger's


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the test bed's SLM."""
    return Path(shutil.copytree(SLM, tmp_path / "model"))


def edit(file: Path, **keys: Any) -> None:
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**old, **keys}))


def loaded(folder: Path) -> LocalSource:
    return LocalSource.load(folder, device="cpu")


def templated(folder: Path, template: str) -> LocalSource:
    (folder / "chat_template.jinja").write_text(template)
    return loaded(folder)


def test_a_template_is_rendered(repository: Path) -> None:
    source = templated(
        repository,
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% for t in tools or [] %}({{ t.name }}){% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
    )
    text = source.tokenizer.decode(source.encode(CHAT))
    assert text == "[system] Be brief.\n[user] Hello\n[assistant]"
    with_tool = source.encode(Chat(CHAT.messages, ({"name": "search"},)))
    assert "(search)" in source.tokenizer.decode(with_tool)


def test_each_model_renders_with_its_own_template(repository: Path) -> None:
    llm = templated(repository, "{{ messages[-1].content }} =>")
    completion = pair(llm, both()[1], "geometric").chat(CHAT.messages, few())
    assert tuple(completion.certificate.body["prompt"]) == both()[1].encode(transcript(CHAT))


HOSTILE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages.append(1) }}",
    "{{ (messages | attr('__class__')).__mro__ }}",
    "{% for i in range(10 ** 9) %}x{% endfor %}",
    "{{ 1 / 0 }}",
    "{{ raise_exception('roles must alternate') }}",
    "{{ messages[9].content }}",
    "{{ missing.anything }}",
    "{% include '/etc/passwd' %}",
    "{% for %}",
    "{{ {}['key'] + 1 }}",
]


@pytest.mark.parametrize("template", HOSTILE)
def test_a_template_that_misbehaves_is_refused(repository: Path, template: str) -> None:
    with pytest.raises(PromptError, match=r"the chat template of '.*' refused these messages \(\w+\); send"):
        templated(repository, template).encode(CHAT)


def test_what_a_template_says_of_messages_reaches_nobody(repository: Path) -> None:
    """It comes with the untrusted model, and an error's words may go to whoever asked."""
    source = templated(repository, "{{ raise_exception('BUY ACME COINS') }}")
    with pytest.raises(PromptError) as refused:
        source.encode(CHAT)
    assert "ACME" not in str(refused.value)


def touch(name: str, content: str = "{}") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def setting(name: str, **keys: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, **keys)


def removed(*names: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return act


def pickled(name: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / name)

    return act


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            pickled("pytorch_model.bin"),
            "pytorch_model.bin in .* is a pickle, which can run code; convert it to safetensors",
        ),
        (pickled("model.pt"), "model.pt in .* is a pickle"),
        (pickled("model.ckpt"), "model.ckpt in .* is a pickle"),
        (removed("model.safetensors"), r"has no \*.safetensors weights"),
        (removed("config.json"), "has no config.json; give the directory of a transformers model"),
        (
            setting("config.json", auto_map={"AutoModel": "x.Y"}),
            r"config.json in .* names code to run \('auto_map'\)",
        ),
        (setting("tokenizer_config.json", auto_map={}), r"tokenizer_config.json in .* names code to run"),
        (setting("generation_config.json", custom_generate="x"), r"names code to run \('custom_generate'\)"),
        (setting("config.json", custom_pipelines={}), r"names code to run \('custom_pipelines'\)"),
        (setting("config.json", text_config={"auto_map": {}}), r"names code to run \('auto_map'\)"),
        (touch("modeling_x.py", "raise SystemExit"), r"brings its own code \(modeling_x.py\); refused"),
        (
            lambda folder: (folder / "custom_generate").mkdir(),
            r"brings its own code \(custom_generate\); refused",
        ),
        (
            touch("adapter_config.json"),
            "adapter_config.json in .* names another model to load; refused, merge the adapter",
        ),
        (touch("config.json", "{"), "config.json is not valid JSON .*; fetch the model again"),
        (touch("generation_config.json", "[" * 100_000), "is not valid JSON"),
        (touch("config.json", "[]"), "does not load as a causal language model"),
        (touch("config.json", '{"model_type": "no-such"}'), "does not load as a causal language model"),
        (touch("model.safetensors", "not at all"), "does not load as a causal language model"),
        (touch("tokenizer.json", "not at all"), "the tokenizer in .* does not load"),
    ],
)
def test_an_unsafe_or_broken_repository_is_refused(
    repository: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(repository)
    with pytest.raises(ModelError, match=words):
        loaded(repository)


def test_an_index_may_only_name_safetensors_beside_it(repository: Path) -> None:
    """transformers reads whatever files the index names, pickles among them."""
    (repository / "model.safetensors").rename(repository / "model-1.safetensors")
    for shard in ("pytorch_model.bin", "../elsewhere.safetensors", "/etc/passwd"):
        index = {"metadata": {}, "weight_map": {"lm_head.weight": shard}}
        (repository / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(
            ModelError, match=r"model.safetensors.index.json in .* names .*, which is no safetensors file"
        ):
            loaded(repository)


def test_weights_beside_a_pickle_are_read_from_safetensors(repository: Path) -> None:
    (repository / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    assert loaded(repository).open(["Once"])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("/no/such/folder", "there is no model directory '/no/such/folder'; give a directory or a hub id"),
        ("./here", "there is no model directory './here'; give a directory or a hub id"),
        ("a/b/c", "there is no model directory 'a/b/c'; give a directory or a hub id"),
        (
            "org/none",
            r"'org/none' is no directory in .*, nor beside the file that names it, and could not be had",
        ),
    ],
)
def test_a_model_that_is_nowhere_is_refused(model: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        find_model(model)


def test_a_model_in_the_hubs_cache_loads_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    snapshot = tmp_path / "models--org--small" / "snapshots" / commit
    shutil.copytree(SLM, snapshot)
    (tmp_path / "models--org--small" / "refs").mkdir()
    (tmp_path / "models--org--small" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    source = LocalSource.load("org/small", device="cpu")
    assert source.identity()["files"] == both()[1].identity()["files"]


def test_settings_in_the_repository_are_not_ours(repository: Path) -> None:
    plain = pair(both()[0], loaded(repository), "geometric").generate("Once upon a time", few())[0]
    edit(
        repository / "generation_config.json",
        temperature=9.0,
        top_k=1,
        suppress_tokens=list(range(1, 2000)),
        repetition_penalty=5.0,
        max_new_tokens=1,
    )
    assert (
        pair(both()[0], loaded(repository), "geometric").generate("Once upon a time", few())[0].tokens
        == plain.tokens
    )


def test_ends_are_taken_from_the_repository(repository: Path) -> None:
    edit(repository / "generation_config.json", eos_token_id=[0, 5])
    assert eos_ids(repository) == {0, 5}
    assert loaded(repository).vocabulary.eos == {0, 5}
    for odd in ("five", {"a": 1}, [[1]], 1.5):
        edit(repository / "generation_config.json", eos_token_id=odd)
        with pytest.raises(ModelError):
            loaded(repository).vocabulary  # noqa: B018  # asking is the test


def test_digests_are_of_the_files_as_they_are(repository: Path) -> None:
    before = file_digests(repository)
    assert before == file_digests(SLM)
    edit(repository / "generation_config.json", temperature=0.5)
    after = file_digests(repository)
    assert {name for name in after if after[name] != before[name]} == {"generation_config.json"}


def test_a_digest_is_never_believed_from_a_name(repository: Path, tmp_path: Path) -> None:
    """A link to a file called like a digest used to pass for it, as the hub's cache names its files so."""
    claimed = tmp_path / ("0" * 64)
    (repository / "model.safetensors").rename(claimed)
    (repository / "model.safetensors").symlink_to(claimed)
    assert file_digests(repository)["model.safetensors"] == file_digests(SLM)["model.safetensors"]


# Options


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_the_dtype_is_as_asked(dtype: str) -> None:
    source = LocalSource.load(SLM, dtype=dtype, device="cpu")
    asked = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    assert source.model.dtype == asked
    assert source.identity()["dtype"] == str(asked).removeprefix("torch.")
    first = torch.log_softmax(source.open(["Once"])[1].float(), -1)
    expected = torch.log_softmax(both()[1].open(["Once"])[1], -1)
    torch.testing.assert_close(first, expected, atol=0.2, rtol=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float8"}, "dtype must be one of auto, float32, bfloat16, float16, not 'float8'"),
        ({"device": "cuda:99"}, "there is no device 'cuda:99' here; use 'auto' or 'cpu'"),
        ({"device": "abacus"}, "there is no device 'abacus' here; use 'auto' or 'cpu'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LocalSource.load(SLM, **options)  # type: ignore[arg-type]


def test_a_device_map_places_the_model() -> None:
    pytest.importorskip("accelerate", reason="accelerate spreads models; it is optional")
    source = LocalSource.load(SLM, device_map="cpu")
    assert source.open(["Once"])[1].device.type == "cpu"


def test_a_model_says_who_it_is_and_not_where() -> None:
    identity = both()[1].identity()
    assert (identity["kind"], identity["name"], identity["dtype"]) == ("transformers", "slm", "float32")
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(identity["files"])
    assert str(SLM.parent) not in json.dumps(identity)


def test_a_safe_directory_passes() -> None:
    check_files(LLM)


def test_a_models_failure_is_one_sentence() -> None:
    source = tiny("gpt2", vocab_size=2050)
    session, _ = source.open(["A"])
    with pytest.raises(SourceError, match="'gpt2' failed while reading: "):
        session.extend(torch.tensor([[99_999]]))


def test_a_half_trained_model_that_answers_nan_is_refused() -> None:
    source = tiny("gpt2", n_positions=32)
    with torch.no_grad():
        source.model.transformer.ln_f.weight[0] = math.nan
    with pytest.raises(ModelError, match="returns NaN for an ordinary text"):
        pair(source, both()[1], "geometric").generate("A", Sampling(max_tokens=1))


def test_a_model_that_comes_to_answer_nan_is_refused() -> None:
    source = tiny("gpt2", n_positions=31)  # of no other test, for it is broken from here on
    assert source.session
    with torch.no_grad():
        source.model.transformer.ln_f.weight[0] = math.nan
    with pytest.raises(SourceError, match="the LLM returned NaN"):
        pair(source, both()[1], "geometric").generate("A", Sampling(max_tokens=1))


# A model that Python has loaded already


class TestLoaded(SourceConformance):
    prompts = ("The king", "Once upon a time there was")

    def source(self) -> LogitSource:
        loaded = both()[1]
        return load_plugins([]).source(
            {"source": "loaded", "model": loaded.model, "tokenizer": loaded.tokenizer, "name": "mine"}
        )


def test_a_loaded_model_claims_no_files() -> None:
    assert TestLoaded().source().identity() == {
        "kind": "transformers",
        "name": "mine",
        "dtype": "float32",
        "files": {},
    }


def test_a_model_in_training_is_refused() -> None:
    model = copy.copy(both()[1].model)
    model.training = True
    with pytest.raises(ModelError, match=r"in training mode.*call its eval\(\) first"):
        LoadedSource(model, both()[1].tokenizer)


# Products by oneDNN


class Calling(torch.nn.Module):
    """A layer that is a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, rows: Tensor) -> Tensor:
        return self.function(rows)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 5), (3, 1), (2, 2), (4,), (3, 40)])
@pytest.mark.parametrize("biased", [True, False])
def test_rows_are_multiplied_alike_either_way(shape: tuple[int, ...], biased: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(*shape, 48, generator=draw), torch.randn(32, 48, generator=draw)
    bias = torch.randn(32, generator=draw) if biased else None
    expected = torch.nn.functional.linear(rows, weight, bias)
    product = onednn.onednn_product(rows, weight, bias)
    assert product.is_contiguous()
    torch.testing.assert_close(product, expected)


@pytest.mark.parametrize("kind", ["mistral", "opt", "bloom", "gpt2"])
def test_a_large_model_read_that_way_gives_its_own_logits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted too: large models go that way, small ones and up to three rows do not; none stays changed.

    For one to three rows oneDNN takes 1.1 to 3 times as long as MKL.
    """
    taken: list[int] = []
    honest = onednn.onednn_product

    def counting(rows: Tensor, *rest: Any) -> Tensor:
        taken.append(rows.numel() // rows.shape[-1])
        return honest(rows, *rest)

    monkeypatch.setattr(onednn, "onednn_product", counting)
    source = tiny(kind)
    for columns, rows in itertools.product((1, 2, 3, 6), (1, 2)):
        tokens = torch.arange(columns).repeat(rows, 1)
        logits = []
        for large in (10**12, 0):
            monkeypatch.setattr(onednn, "LARGE", large)
            session, _ = source.open(["A fox"] * rows)
            with session:
                taken.clear()
                logits.append(session.extend(tokens))
            assert set(taken) == (set() if large or columns * rows <= onednn.FEW else {columns * rows})
        torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)
    assert not any("forward" in layer.__dict__ for layer in source.model.modules())


@pytest.mark.parametrize("kind", ["mistral", "opt", "bloom", "gpt2", "mamba"])
def test_a_model_with_packed_layers_gives_its_own_logits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So for every number of rows; what is tied, or read by the model itself, is not packed."""
    monkeypatch.setattr(onednn, "LARGE", 0)
    model = deepcopy(tiny(kind).model)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokens = [torch.arange(columns).repeat(rows, 1) for columns in (1, 2, 3, 6) for rows in (1, 2)]
    with torch.inference_mode():
        expected = [model(each).logits for each in tokens]
        done = packed.pack(model)
        assert done == any(isinstance(each, PackedLinear) for each in model.modules())
        assert done or kind not in {"mistral", "opt", "bloom"}
        for each, logits in zip(tokens, expected, strict=True):
            torch.testing.assert_close(model(each).logits, logits, atol=1e-3, rtol=1e-3)
        alone = packed.plain_copy(model)
    assert model.num_parameters() == sum(each.numel() for each in alone.parameters())
    assert all(torch.equal(weights[name], weight) for name, weight in alone.state_dict().items())
    assert done == any(isinstance(each, PackedLinear) for each in model.modules())


def test_a_model_that_reads_its_weights_itself_gets_its_layers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "LARGE", 0)
    model = deepcopy(tiny("mistral").model)
    layer = model.model.layers[0].self_attn.q_proj
    before = layer.weight.clone()

    def reading_itself(rows: Tensor) -> Tensor:
        weight = model.model.layers[0].self_attn.q_proj.weight
        return torch.einsum("...i,oi->...o", rows, weight)

    monkeypatch.setattr(model.model.layers[0].self_attn, "o_proj", Calling(reading_itself))
    assert not packed.pack(model)
    assert torch.equal(model.model.layers[0].self_attn.q_proj.weight, before)


def test_only_a_large_model_in_float32_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not packed.pack(tiny("mistral").model)
    monkeypatch.setattr(onednn, "LARGE", 0)
    assert not packed.pack(deepcopy(tiny("mistral").model).bfloat16())


def test_a_packed_layer_has_its_layer_s_gradient() -> None:
    layer, rows = torch.nn.Linear(4, 3), torch.ones(2, 4, requires_grad=True)
    layer(rows).sum().backward()
    expected, rows.grad = rows.grad, None
    PackedLinear(layer)(rows).sum().backward()
    torch.testing.assert_close(rows.grad, expected)


def test_gradients_never_meet_the_other_way() -> None:
    layer = torch.nn.Linear(4, 3)
    with onednn.onednn_layers([layer]):
        layer(torch.ones(2, 4)).sum().backward()
    assert layer.weight.grad is not None
