"""`purify detect`: whether a text carries a watermark, by its key and the SLM's tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.cli.options import (
    AsJson,
    ConfigFile,
    configuration_exists,
    contents,
    disable_progress_bars,
    spread,
)
from purify_plugins.errors import ConfigError, MismatchError
from purify_plugins.utils.files import decoded

if TYPE_CHECKING:
    from purify_plugins.configuration.config import Config
    from purify_plugins.decode.watermark import Watermark
    from purify_plugins.decode.watermark_detection import Detection


@dataclass(frozen=True)
class DetectOptions:
    """The key, and what reads the text; what is not given comes from the configuration."""

    key_env: Annotated[str | None, typer.Option(help="The environment variable with the key.")] = None
    key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The file with the key.")] = None
    context: Annotated[int | None, typer.Option(help="Tokens that key a draw. [4]")] = None
    slm: Annotated[str | None, typer.Option(help="The SLM, for its tokenizer; no weight is read.")] = None
    tokenizer: Annotated[str | None, typer.Option(help="The SLM's tokenizer, instead of --slm.")] = None
    certificate: Annotated[
        str | None,
        typer.Option(metavar="CERT", help="Its certificate: the tokens as drawn, and the key's id."),
    ] = None

    @property
    def whole(self) -> bool:
        """Whether nothing is left for a configuration to say."""
        return bool((self.key_env or self.key_file) and (self.slm or self.tokenizer or self.certificate))

    def watermark(self, config: Config | None) -> Watermark:
        """The watermark to look for. Raises ConfigError where no key is named."""
        from purify_plugins.configuration.build import watermark
        from purify_plugins.configuration.config import WatermarkConfig
        from purify_plugins.configuration.secrets import key_of

        own = config.watermark if config else WatermarkConfig()
        names = ("--key-env", "--key-file")
        if (key := key_of(self.key_env, self.key_file, "", names)) is not None:
            from purify_plugins.decode.watermark import Watermark

            return Watermark(key, own.context if self.context is None else self.context)
        found = watermark(own)
        if found is None:
            raise ConfigError("no key is named; give --key-env VARIABLE or --key-file FILE, or --config FILE")
        return found

    def place(self, config: Config | None) -> str:
        """The directory of the tokenizer. Raises ConfigError where none is named."""
        found = self.tokenizer or self.slm or (config.slm.get("model") if config else None)
        if not found:
            raise ConfigError("a text is read with the SLM's tokenizer; give --slm DIR or --tokenizer DIR")
        return str(found)


@spread
def detect(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text's file; `-`: standard input.")],
    options: DetectOptions,
    at: Annotated[float, typer.Option(help="The p-value from which on a text counts as marked.")] = 1e-6,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a text carries the watermark of a key; exits with 0 if it does, with 1 if not."""
    from purify_plugins.decode.watermark_detection import detect as test

    if not 0 < at < 1:
        raise ConfigError(f"--at is a probability between 0 and 1, not {at}")
    settings = None if options.whole and not config else _configuration(config)
    watermark, said = options.watermark(settings), contents(text)
    if options.certificate is None:
        tokens = _tokens(decoded(said, text), options.place(settings))
    else:
        tokens = _certified(options.certificate, said, watermark)
    found = test(watermark, tokens)
    marked = found.p_value <= at
    typer.echo(json.dumps(_told(found, len(tokens), watermark, marked)) if as_json else _sentence(found, at))
    if not marked:
        raise typer.Exit(1)


def _configuration(config: Path | None) -> Config | None:
    from purify_plugins.configuration.config import read_config

    return read_config(config) if configuration_exists(config) else None


def _tokens(text: str, place: str) -> list[int]:
    """The text's tokens, as the tokenizer there reads it."""
    from purify_plugins.tokenizers.loading import find_tokenizer, load_tokenizer, require_tokenizer

    disable_progress_bars()
    folder = find_tokenizer(place)
    require_tokenizer(folder)
    found: list[int] = load_tokenizer(folder)(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _certified(certificate: str, text: bytes, watermark: Watermark) -> list[int]:
    """The tokens of a certificate for this text. Raises MismatchError for another text or another key."""
    from purify_plugins.certificates import Pins, read
    from purify_plugins.plugin.manager import load_plugins

    found = read(contents(certificate).removesuffix(b"\n"))
    Pins(answer=text).check(found, load_plugins(()))
    mark = found.decoded["method"].get("watermark")
    if mark is None or (mark["key"], mark["context"]) != (watermark.id, watermark.context):
        named = "no watermark" if mark is None else _named(mark["key"], mark["context"])
        raise MismatchError(
            f"the certificate names {named}, and what was given is {_named(watermark.id, watermark.context)}"
        )
    return [step[0] for step in found.decoded["steps"]]


def _named(key: str, context: int) -> str:
    return f"key {key} with a context of {context}"


def _told(found: Detection, tokens: int, watermark: Watermark, marked: bool) -> dict[str, Any]:
    return {
        "marked": marked,
        "p_value": found.p_value,
        "tokens": tokens,
        "places": found.places,
        "score": found.score,
        "part": list(found.part),
        "key": watermark.id,
        "context": watermark.context,
    }


def _sentence(found: Detection, at: float) -> str:
    """The result in words."""
    if not found.places:
        return "cannot tell: the text is shorter than the watermark's context, so no mark could be in it"
    start, end = found.part
    said = (
        f"score {found.score:.1f} over {found.places} places, where an unmarked text has {found.places} on "
        f"average; an unmarked text scores as high with probability at most {found.p_value:.2g}"
    )
    if found.p_value > at:
        return f"no mark found: {said}. A short, predictable or edited text may have carried one."
    return f"marked: {said}. Most of it is in tokens {start} to {end}."
