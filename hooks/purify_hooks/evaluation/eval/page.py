"""Shared by all generated pages: templates with one style sheet, and facts on the machine."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import read_text, require_writable, write_whole

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(package: str) -> Environment:
    """The templates of `purify_hooks.evaluation.PACKAGE`, which may include `page.css`."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader(
            [PackageLoader(f"purify_hooks.evaluation.{name}", ".") for name in (package, "eval")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def region(name: str) -> re.Pattern[str]:
    """The generated region of a page in `docs`; groups: the start marker's line and the end marker."""
    return re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.DOTALL)


def fill_region(page: Path, name: str, text: str) -> None:
    """Write a text into a page's generated region, in place of what it had."""
    write_whole(page, region(name).sub(lambda found: f"{found[1]}{text}{found[2]}", read_text(page)))


def require_region(page: Path, name: str) -> None:
    """Raise ConfigError for a page that is not there, has no such region, or cannot be written."""
    if not page.is_file() or not region(name).search(read_text(page)):
        raise ConfigError(
            f"{page} needs the lines <!-- {name}:start --> and <!-- {name}:end --> to write between; "
            "give the directory with such a page"
        )
    require_writable(page)


def model_name(identity: Mapping[str, Any]) -> str:
    """A model's name and the digests of its weights, from its source's identity."""
    digests = [digest for name, digest in identity.get("files", {}).items() if name.endswith(".safetensors")]
    weights = (f"weights SHA-256 {digest[:16]}…" for digest in digests)
    return ", ".join([str(identity.get("name", "unknown")), *weights])


def made() -> dict[str, str]:
    """The date a page was made on, the versions it was made with, and the machine."""
    packages = [f"{name} {version(name)}" for name in ("purify-plugins", "transformers", "torch")]
    versions = ", ".join([*packages, f"Python {platform.python_version()}"])
    return {"date": today(), "versions": versions, "machine": machine()}


def command_line(name: str) -> str:
    """The command that runs, as it was typed; in a program only its name, as `purify eval`."""
    typed = Path(sys.argv[0]).stem in ("purify", "__main__") and sys.argv[1:2] == [name]
    return shlex.join(["purify", *(sys.argv[1:] if typed else [name])])


def today() -> str:
    """The date in UTC, as 2026-11-28."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def machine() -> str:
    """The processor, the system and how many cores this process may use, on which every speed depends."""
    return f"{_processor()}, {platform.system()}, {_cores()}"


def load() -> str:
    """The load average of the last minute; "" where the platform has none."""
    return f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""  # Windows has none


def _processor() -> str:
    """The processor's model name on Linux, else what `platform` reports."""
    listed = Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*:\s*(.+)$", listed.read_text(), re.MULTILINE) if listed.exists() else None
    )
    return found[1].strip() if found else platform.processor() or platform.machine()


def _cores() -> str:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return "1 core" if count == 1 else f"{count} cores"
