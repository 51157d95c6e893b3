"""`purify verify`: check a certificate against models, files and expected fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Annotated, Any

import typer

from purify_plugins.certificates.explain_stages import explained
from purify_plugins.certificates.recomputation import Recomputed
from purify_plugins.cli.inspect import model_facts
from purify_plugins.cli.options import (
    AsJson,
    ConfigFile,
    contents,
    disable_progress_bars,
    in_use,
    spread,
)
from purify_plugins.cli.recorded_models import Side, recorded_source, require_recorded
from purify_plugins.errors import CertificateError, ConfigError
from purify_plugins.plugin.manager import Plugins
from purify_plugins.types import Certificate
from purify_plugins.utils.files import read_text
from purify_plugins.verifying.examine import examined, in_order, refused
from purify_plugins.verifying.wanted import field
from purify_plugins.verifying.wanted import known as wanted

SHOWN = ("answer", "context", "stages", "segments", "checks", "ledger", "scores", "totals", "digest")
"""Fields that `--json` shows as they are."""


@dataclass(frozen=True)
class VerifyOptions:
    """The models to recompute with, and the values the certificate must have."""

    slm: Annotated[
        str | None,
        typer.Option(
            help="The SLM, or a purify.toml that names it: ask it again, and let the steps spell the answer."
        ),
    ] = None
    llm: Annotated[str | None, typer.Option(help="The LLM it names: compute its figures again too.")] = None
    answer: Annotated[str | None, typer.Option(metavar="FILE", help="The text it must be for.")] = None
    prompt: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The text it must answer; needs --slm.")
    ] = None
    policy: Annotated[
        str | None, typer.Option(help="The policy it must be under, with its options at their defaults.")
    ] = None
    set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of --policy's; repeatable.")
    ] = None
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A public key that must have signed it; repeatable: all must."),
    ] = None
    issued_after: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="When it must have been issued, or later, such as 2026-11-29."),
    ] = None
    chain: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE", help="Its issuer's chain, which it must stand in, and which must be whole."
        ),
    ] = None
    tsa: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificates (PEM) of an authority that must have dated its day."),
    ] = None
    slm_digest: Annotated[
        str | None, typer.Option(metavar="SHA256|DIR|FILE", help="The SLM it must name.")
    ] = None
    llm_digest: Annotated[
        str | None, typer.Option(metavar="SHA256|DIR|FILE", help="The LLM it must name.")
    ] = None
    slm_card: Annotated[
        str | None, typer.Option(metavar="FILE", help="The provenance card of the SLM it must name.")
    ] = None
    llm_card: Annotated[
        str | None, typer.Option(metavar="FILE", help="The provenance card of the LLM it must name.")
    ] = None
    expect: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="Any field, such as method.sampling.seed=null; repeatable."),
    ] = None
    require: Annotated[
        str | None,
        typer.Option(metavar="GUARANTEE", help="What must hold for this very answer, such as passage."),
    ] = None

    def require_slm(self) -> None:
        """Raise ConfigError for a model without a name, and for what needs an SLM that is not given."""
        for side, model in self.models():
            if not model.strip():
                raise ConfigError(f"--{side} names no model; give its directory, or leave --{side} out")
        if (self.llm or self.prompt) and self.slm is None:
            raise ConfigError("--llm and --prompt are checked with the SLM; give --slm DIR too")

    def models(self) -> Iterator[tuple[Side, str]]:
        """The named models, the SLM first."""
        if self.slm is not None:
            yield "slm", self.slm
        if self.llm is not None:
            yield "llm", self.llm

    def asked(self) -> str | None:
        """The prompt's text."""
        return read_text(self.prompt) if self.prompt else None

    def given(self) -> list[str]:
        """The names of the given options; for --expect the fields it names."""
        names = [each.name for each in fields_of(self) if getattr(self, each.name) and each.name != "expect"]
        return [*names, *(path for path, _ in map(field, self.expect or ()))]

    def told(self) -> dict[str, list[str]]:
        """The given options, the compared fields, and the fields taken on the issuer's word, as JSON."""
        from purify_plugins.certificates.explain import compared

        fine, open_ = compared(self.given())
        return {"checked": self.given(), "compared": fine, "not_compared": open_}


@spread
def verify(
    certificate: Annotated[
        str, typer.Argument(metavar="CERT", help="A certificate's file; `-`: standard input.")
    ],
    known: VerifyOptions,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Check a certificate, and say in plain words what it claims."""
    known.require_slm()
    loaded = in_use(config)
    try:
        data = contents(certificate).removesuffix(b"\n")
        seen = examined(data, wanted(known, loaded, contents), loaded)
        found, prompt = seen.certificate, known.asked()
        off, untold = (None, ()) if known.slm is None else _recomputed(found, loaded, known, prompt)
    except CertificateError as error:
        if as_json:
            typer.echo(json.dumps(refused(error)))
        raise
    if as_json:
        typer.echo(json.dumps({**seen.told(), **_verdict(found, off, untold), **known.told()}))
    else:
        typer.echo("\n".join(in_order(seen, explained(found, off, known.given(), untold))))
    raise typer.Exit(seen.code)


def _recomputed(
    certificate: Certificate, loaded: Plugins, known: VerifyOptions, prompt: str | None
) -> Recomputed:
    """The difference from recomputed figures; models are loaded in the recorded precision."""
    from purify_plugins.certificates import recomputed, recomputed_both

    for side, model in known.models():
        require_recorded(certificate, side, loaded, model)
    disable_progress_bars()
    slm = recorded_source(certificate, "slm", loaded, str(known.slm))
    found = recomputed(certificate, slm, prompt=prompt)
    if known.llm is not None:
        llm = recorded_source(certificate, "llm", loaded, known.llm)
        found = recomputed_both(certificate, llm, slm, loaded)
    return found


def _verdict(certificate: Certificate, off: float | None, untold: Sequence[str]) -> dict[str, Any]:
    """The certificate's fields without steps, prompt and limits."""
    body, decoded = certificate.body, certificate.decoded
    facts = [key for key in SHOWN if key in body]
    return {
        "valid": True,
        **decoded["method"],
        **(body["claim"] if certificate.staged else {}),
        "models": {side: model_facts(told) for side, told in decoded["models"].items()},
        **{key: body[key] for key in facts},
        "recomputed_within": off,
        **({"not_recomputed": list(untold)} if untold else {}),
    }
