"""What every page we write shares: one style, nothing fetched, everything escaped."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(package: str) -> Environment:
    """The templates of `purify_plugins.PACKAGE`, which may include `page.css`."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader([PackageLoader(f"purify_plugins.{name}", ".") for name in (package, "eval")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def made() -> dict[str, str]:
    """When a page was made, and with which versions."""
    packages = [f"{name} {version(name)}" for name in ("purify-plugins", "transformers", "torch")]
    versions = ", ".join([*packages, f"Python {platform.python_version()}"])
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "versions": versions}
