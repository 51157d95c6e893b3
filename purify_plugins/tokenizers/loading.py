"""Load an untrusted tokenizer: its size, its output per character and its settings are limited."""

from __future__ import annotations

import base64
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from purify_plugins.errors import ConfigError, ModelError
from purify_plugins.utils.model_files import MEGABYTE, SETTINGS, download, read_table, require_regular

FILES = 128 * MEGABYTE
"""The most bytes of a vocabulary; the largest published has 34 million."""
TEMPLATE = MEGABYTE // 8
"""The most characters of a chat template; the longest published have 30,000."""
TOKENS = 2_000_000
"""How many tokens a tokenizer may have; the largest published have 262,144."""
ADDED = 100_000
"""How many tokens may be added to a vocabulary: each costs time. The largest published sets have 66,000."""
PIECE = 4096
"""The most characters of one token: a prefix tree a million deep overflows the stack when it is freed."""
PATTERN = 8192
"""The most characters of a regular expression; the longest published have 600."""
GROWTH = 32
"""The most characters that a normalizer may make of one."""
BIG = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.tiktoken",
    "spiece.model",
)
SMALL = ("config.json", "generation_config.json", "tokenizer_config.json", "added_tokens.json", "*.jinja")
SETTING = frozenset(
    [
        "added_tokens_decoder",
        "added_tokens",
        "additional_special_tokens",
        "extra_special_tokens",
        "model_specific_special_tokens",
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
        "sep_token",
        "cls_token",
        "mask_token",
        "add_bos_token",
        "add_eos_token",
        "add_prefix_space",
        "add_dummy_prefix_space",
        "clean_up_tokenization_spaces",
        "spaces_between_special_tokens",
        "split_special_tokens",
        "legacy",
        "errors",
        "do_lower_case",
        "keep_accents",
        "strip_accents",
        "tokenize_chinese_chars",
        "trim_offsets",
        "remove_space",
        "use_regex",
        "chat_template",
        "model_max_length",
        "max_length",
        "padding_side",
        "truncation_side",
        "model_input_names",
        "tokenizer_class",
        "backend",
        "fix_mistral_regex",
        "pretokenizer_type",
    ]
)
"""The keys of tokenizer_config.json that are used; others, such as paths, are dropped."""


def find_tokenizer(tokenizer: str | Path, offline: bool = False) -> Path:
    """The directory of a tokenizer: a local path, or a hub id of which only its files are fetched.

    `offline` takes what is here already. Raises ModelError, and ConfigError for what is no name.
    """
    if not isinstance(tokenizer, str | Path) or not str(tokenizer).strip():
        raise ConfigError(f"tokenizer must be a directory or a hub id, not {tokenizer!r}")
    folder = Path(tokenizer).expanduser()
    return folder if folder.is_dir() else download(str(tokenizer), (*BIG, *SMALL), offline=offline)


def has_tokenizer(folder: Path) -> bool:
    """Whether a directory has a tokenizer's files."""
    return any(next(folder.glob(pattern), None) for pattern in BIG)


def require_tokenizer(folder: Path) -> None:
    """Raise ModelError for a directory without a tokenizer's files."""
    if not has_tokenizer(folder):
        raise ModelError(
            f"{folder} has no tokenizer ({BIG[0]}, {BIG[1]} or the like); put its model's beside it"
        )


def load_tokenizer(folder: Path, config: Any = None) -> Any:
    """The tokenizer in a directory, as transformers loads it; `config` is its model's, where there is one.

    It is loaded from a copy with only the checked files. Raises ModelError.
    """
    from transformers import AutoTokenizer

    with panics(f"the tokenizer in {folder} does not load"), _copied(folder) as copy:
        check_tokenizer(folder)
        given = {"config": config} if config is not None else {}
        loaded = AutoTokenizer.from_pretrained(copy, trust_remote_code=False, local_files_only=True, **given)
        check_template(loaded.chat_template, folder)
    loaded.name_or_path = str(folder)
    return loaded


@contextmanager
def panics(what: str) -> Iterator[None]:
    """Raise a ModelError for any error of a tokenizer; a panic of its Rust code is not an Exception."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise ModelError(f"{what}: {str(error)[:500]}") from error


def is_panic(error: BaseException) -> bool:
    """Whether Rust code has panicked; pyo3's exception class cannot be imported."""
    return type(error).__name__ == "PanicException"


def check_tokenizer(folder: Path) -> None:
    """Raise ModelError for files that are too large, or whose output per character is too large."""
    for pattern in BIG:
        for file in folder.glob(pattern):
            require_regular(file, FILES)
    for file in (*folder.glob("*.jinja"), *folder.glob("*templates/*.jinja")):
        require_regular(file, TEMPLATE)
    if (folder / "tokenizer.json").exists():
        _check_fast(read_table(folder / "tokenizer.json", FILES), folder / "tokenizer.json")


def check_template(template: Any, folder: Path) -> None:
    """Raise ModelError for a chat template that is not text, or is too long to be parsed in time."""
    for each in template.values() if isinstance(template, dict) else [template]:
        if each is not None and (not isinstance(each, str) or len(each) > TEMPLATE):
            raise ModelError(
                f"the chat template in {folder} is no text of at most {TEMPLATE:,} characters; use another"
            )


@contextmanager
def _copied(folder: Path) -> Iterator[Path]:
    """A temporary directory with the tokenizer's files and its known settings."""
    with tempfile.TemporaryDirectory(prefix="purify-") as made:
        copy = Path(made)
        for pattern in (*BIG, "*.jinja", "added_tokens.json", "special_tokens_map.json"):
            for file in folder.glob(pattern):
                if file.is_file():
                    _link(file, copy / file.name)
        if (folder / "tokenizer_config.json").exists():
            said = read_table(folder / "tokenizer_config.json", SETTINGS)
            _check_settings(said, folder / "tokenizer_config.json")
            kept = {key: value for key, value in said.items() if key in SETTING or key.endswith("_token")}
            (copy / "tokenizer_config.json").write_text(json.dumps(kept), "utf-8")
        if (folder / "config.json").exists():
            said = read_table(folder / "config.json", SETTINGS)
            kept = {
                key: said[key] for key in ("model_type", "tokenizer_class") if isinstance(said.get(key), str)
            }
            (copy / "config.json").write_text(json.dumps(kept), "utf-8")
        yield copy


def _check_settings(said: Mapping[str, Any], file: Path) -> None:
    """Raise ModelError for settings that add too many tokens, or whose limit is no number."""
    if most := [key for key, value in said.items() if isinstance(value, dict | list) and len(value) > ADDED]:
        raise ModelError(
            f"{file}: {most[0][:80]!r} has {len(said[most[0]]):,} entries, at most {ADDED:,} are read"
        )
    if not isinstance(said.get("model_max_length", 0), int | float | None):
        raise ModelError(
            f"{file}: model_max_length is {str(said['model_max_length'])[:80]!r}, which is no number"
        )


def _link(file: Path, place: Path) -> None:
    try:
        place.symlink_to(file.resolve())
    except OSError:  # a system that lets only administrators link
        shutil.copyfile(file, place)


def _check_fast(settings: Mapping[str, Any], file: Path) -> None:
    """Raise ModelError for a tokenizer.json whose output or run time has no sensible bound."""
    model = settings.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    added = settings.get("added_tokens") or []
    if not isinstance(vocabulary, dict | list) or not isinstance(added, list):
        raise ModelError(f"{file.name} has no vocabulary; fetch the model again")
    if len(vocabulary) + len(added) > TOKENS:
        raise ModelError(f"{file} has {len(vocabulary) + len(added):,} tokens, at most {TOKENS:,} are read")
    if len(added) > ADDED:
        raise ModelError(f"{file} adds {len(added):,} tokens, at most {ADDED:,} are read")
    longest = max(map(len, _pieces(vocabulary, added)), default=0)
    if longest > PIECE:
        raise ModelError(f"{file} has a token of {longest:,} characters, at most {PIECE:,} are read")
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        if _grows(settings.get(part), file) > GROWTH:
            raise ModelError(f"{file}: its {part} makes far more of a text than it is given; refused")


def _pieces(vocabulary: Any, added: list[Any]) -> Iterator[str]:
    """The texts of a tokenizer's tokens; Unigram's stand in a list, each beside its score."""
    for each in vocabulary:
        piece = each[0] if isinstance(each, list) and each else each
        yield piece if isinstance(piece, str) else ""
    yield from (str(each.get("content", "")) for each in added if isinstance(each, dict))


def _grows(part: Any, file: Path) -> float:
    """The most characters that a part of a tokenizer makes of one, multiplied over its steps."""
    if not isinstance(part, dict):
        return 1
    for name in ("normalizers", "pretokenizers", "decoders", "processors"):
        if isinstance(part.get(name), list):
            grown = 1.0
            for each in part[name]:
                grown *= _grows(each, file)
            return grown
    _check_pattern(part.get("pattern"), file)
    if part.get("type") == "Precompiled":
        return _charsmap(part.get("precompiled_charsmap"))
    if part.get("type") == "TemplateProcessing":
        return 1 + _template_tokens(part) / 64
    if part.get("type") == "Prepend":
        return 1 + len(str(part.get("prepend", ""))) / 8
    return _replaced(part) if part.get("type") == "Replace" else 1


def _template_tokens(part: Mapping[str, Any]) -> int:
    """How many tokens a post-processor puts around a text."""
    special = part.get("special_tokens")
    special = special if isinstance(special, dict) else {}
    count = 0
    for place in (each for key in ("single", "pair") for each in part.get(key) or ()):
        named = place.get("SpecialToken") if isinstance(place, dict) else None
        ids = special.get(str(named.get("id")), {}) if isinstance(named, dict) else {}
        count += max(1, len(ids["ids"]) if isinstance(ids, dict) and isinstance(ids.get("ids"), list) else 1)
    return count


def _replaced(part: Mapping[str, Any]) -> float:
    pattern = part.get("pattern")
    found = pattern.get("String") if isinstance(pattern, dict) else None
    shortest = len(found) if isinstance(found, str) and found else 1
    return max(1.0, len(str(part.get("content", ""))) / shortest)


def _charsmap(encoded: Any) -> float:
    """The longest replacement in SentencePiece's table of characters."""
    try:
        table = base64.b64decode(encoded or "", validate=True)
    except (ValueError, TypeError):
        return float("inf")
    texts = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
    return max(1.0, max((len(text.decode("utf-8", "replace")) for text in texts), default=1))


def _check_pattern(pattern: Any, file: Path) -> None:
    """Raise ModelError for a regular expression with catastrophic backtracking."""
    regex = pattern.get("Regex") if isinstance(pattern, dict) else None
    if not isinstance(regex, str):
        return
    if len(regex) > PATTERN or repeats(regex) > 1 or re.search(r"\\[1-9]|\\k<|\(\?R|\\g<", regex):
        raise ModelError(
            f"{file}: the regular expression {regex[:60]!r} repeats what repeats, which some texts keep busy "
            "for ever; refused"
        )


def repeats(regex: str) -> int:
    """The nesting depth of unbounded repetition: 1 for `a+b*`, 2 for `(a+)+`."""
    plain = re.sub(r"\\.", "x", regex, flags=re.DOTALL)  # no escaped character opens or repeats anything
    plain = _without_classes(plain)
    stack, last, deepest = [0], 0, 0
    at = 0
    while at < len(plain):
        letter = plain[at]
        found = re.match(r"[*+]|\{\d*,\}|\{\d+,?\d{3,}\}", plain[at:])
        if letter == "(":
            stack.append(0)
            last = 0
        elif letter == ")" and len(stack) > 1:
            last = stack.pop()
            stack[-1] = max(stack[-1], last)
        elif found and at and plain[at - 1] not in "(|*+?":
            last += 1
            stack[-1] = max(stack[-1], last)
            at += len(found[0]) - 1
        elif letter not in "?{},0123456789":
            last = 0
        deepest = max(deepest, *stack)
        at += 1
    return deepest


def _without_classes(regex: str) -> str:
    """The expression with every character class, nested ones included, replaced by one letter."""
    made, depth = [], 0
    for letter in regex:
        if letter == "[":
            depth += 1
        elif letter == "]" and depth:
            depth -= 1
            if not depth:
                made.append("x")
        elif not depth:
            made.append(letter)
    return "".join(made)
