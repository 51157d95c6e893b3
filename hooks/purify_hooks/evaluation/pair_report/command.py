"""The commands `purify report` and `purify report check`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purify_plugins.cli.options import AsJson, ConfigFile, contents, load_pair, on_interrupt, prepared
from purify_plugins.errors import CertificateError
from purify_plugins.utils.extras import require_extra
from purify_plugins.verifying.examine import HOLDS, UNKNOWN, VERDICTS, public_keys, refused

if TYPE_CHECKING:
    from purify_hooks.evaluation.pair_report.body import Findings
    from purify_hooks.evaluation.pair_report.evaluated import Evaluation
    from purify_hooks.evaluation.pair_report.signed import StatedReport
    from purify_hooks.evaluation.pair_report.works import NamedWork
    from purify_plugins.configuration.build import Prepared
    from purify_plugins.signing.signer import Signer

Out = Annotated[Path, typer.Option(help="The directory for report.html and report.json.")]
Measured = Annotated[
    Path | None, typer.Option(metavar="DIR", help="What `purify eval --pair` wrote of this pair.")
]
Works = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE", help="A work that must not be recited, plain text; repeatable."),
]
Keys = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="A private key that signs it; repeatable. [those of [certificate]]"),
]
Pdf = Annotated[bool, typer.Option("--pdf", help="Print report.pdf too, with an installed Chromium.")]
Passages = Annotated[int, typer.Option(min=1, help="Passages of each work.")]
FOLDER = Path("purify-report")

report = typer.Typer(add_completion=False)


@report.callback(invoke_without_command=True)
def make(
    context: typer.Context,
    config: ConfigFile = None,
    out: Out = FOLDER,
    evaluation: Measured = None,
    work: Works = None,
    passages: Passages = 8,
    key: Keys = None,
    pdf: Pdf = False,
    as_json: AsJson = False,
) -> None:
    """Say in one page and one file what is measured, bounded and known of a pair and its policy."""
    if context.invoked_subcommand:
        return
    from purify_hooks.evaluation.pair_report.evaluated import read_evaluation
    from purify_hooks.evaluation.pair_report.pdf import browser, printed
    from purify_hooks.evaluation.pair_report.works import given
    from purify_plugins.configuration.config import read_config
    from purify_plugins.utils.files import make_folder

    named = given(work or ())
    measured = read_evaluation(evaluation) if evaluation else None
    own = _signer(key or ())
    chromium = browser() if pdf else ""
    ready = prepared(read_config(config))
    signer = own or ready.options["signer"]
    make_folder(out)
    with on_interrupt("nothing was written"):
        found = _findings(ready, named, measured, passages, signer)
    shown = _write(out, found, signer)
    files = [out / "report.html", out / "report.json"]
    files += [printed(files[0], chromium)] if pdf else []
    typer.echo(json.dumps(shown) if as_json else _told(shown, files))


def _signer(keys: Sequence[str]) -> Signer | None:
    """What signs with the keys given; None: none is. Raises ConfigError."""
    if not keys:
        return None
    from purify_plugins.configuration.signing import signing_key
    from purify_plugins.signing.signer import Signer

    require_extra("sign", "signing a report")
    return Signer([signing_key(each) for each in keys])


def _findings(
    ready: Prepared,
    named: Sequence[NamedWork],
    evaluation: Evaluation | None,
    count: int,
    signer: Signer | None,
) -> Findings:
    """Load the pair, and measure the named works. Raises PurifyError."""
    from purify_hooks.evaluation.eval.page import command_line
    from purify_hooks.evaluation.pair_report import works
    from purify_hooks.evaluation.pair_report.body import Findings
    from purify_hooks.evaluation.pair_report.measured import reader
    from purify_hooks.progress import shown_progress
    from purify_plugins.certificates.calibration_record import digest_of

    purifier = load_pair(ready)
    if evaluation:
        sides = {"llm": purifier.llm, "slm": purifier.slm}
        evaluation.require_of({side: digest_of(source.identity()) for side, source in sides.items()})
    reads = reader(purifier)
    every = works.joined(named, reads.listed, works.protected(purifier.stages))
    known = [each for each in every if each.passages(1)]
    with shown_progress() as progress:
        found = reads.measured(known, count, lambda done, total: progress(done, total, "passages"))
    return Findings(
        ready,
        purifier,
        evaluation,
        found,
        [each for each in every if each not in known],
        reads.recognised,
        reads.sampling,
        signer.key_ids if signer else (),
        command_line("report"),
    )


def _write(out: Path, found: Findings, signer: Signer | None) -> dict[str, object]:
    """Write the page and the data; the body."""
    from purify_hooks.evaluation.pair_report.page import page
    from purify_hooks.evaluation.pair_report.signed import DATA, PAGE, stated
    from purify_plugins.utils.files import write_whole

    body = found.body()
    html = page(body, found.evaluation).encode()
    write_whole(out / PAGE, html)
    write_whole(out / DATA, stated(body, html, signer))
    return body


def _told(body: dict[str, object], files: Sequence[Path]) -> str:
    """The guarantee, and what was written."""
    guarantee = body["guarantee"]
    assert isinstance(guarantee, dict)
    return "\n".join([*guarantee["sentences"], *(f"{file}" for file in files)])


@report.command()
def check(
    file: Annotated[str, typer.Argument(metavar="REPORT", help="A report.json; `-`: standard input.")],
    html: Annotated[str | None, typer.Option(metavar="FILE", help="The page that was sent with it.")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A public key that must have signed it; repeatable: all must."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a report is whole, who signed it, and whether a page is the one that it is about."""
    from purify_hooks.evaluation.pair_report.signed import read_report

    try:
        found = read_report(contents(file).removesuffix(b"\n"), public_keys(key or (), contents))
        if html:
            found.require_page(contents(html))
    except CertificateError as error:
        if as_json:
            typer.echo(json.dumps(refused(error)))
        raise
    code = UNKNOWN if found.signed and not found.signers else HOLDS
    typer.echo(
        json.dumps(_as_json(found, code, html)) if as_json else "\n".join(_sentences(found, code, html))
    )
    raise typer.Exit(code)


def _as_json(found: StatedReport, code: int, html: str | None) -> dict[str, object]:
    keys = [key.id for key in found.signers]
    verdict = {"verdict": VERDICTS[code], "exit_code": code, "signed_by": keys}
    return {**verdict, "page_compared": html is not None, "page": found.page, "report": found.body}


def _sentences(found: StatedReport, code: int, html: str | None) -> list[str]:
    """The verdict, the guarantee in words, and what was not compared."""
    if code == UNKNOWN:
        first = (
            "Verdict: CANNOT TELL, since it is signed and no key was given; give --key FILE, which its maker "
            "publishes."
        )
    elif found.signed:
        by = " and ".join(key.id for key in found.signers)
        first = f"Verdict: HOLDS. The report is signed by {by}, and is unaltered since."
    else:
        first = "Verdict: HOLDS, as far as it can without a signature: whoever sends it can have written it."
    page = (
        "The page is the one that it is about."
        if html
        else f"The page was not compared: its SHA-256 must be {found.page}, or give --html FILE."
    )
    others = [f"Signatures that were not checked: {', '.join(f'{each[:16]}…' for each in found.others)}."]
    return [
        first,
        page,
        *(others if found.others else []),
        *found.body["guarantee"]["sentences"],
        f"Made {found.body['made']['date']} by: {found.body['command']}",
        found.body["disclaimer"],
    ]
