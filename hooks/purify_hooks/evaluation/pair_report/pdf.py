"""The page as PDF, printed by a Chromium that is installed: no library of our own for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from purify_plugins.errors import ConfigError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
SECONDS = 120
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--no-pdf-header-footer",
)


def browser() -> str:
    """The browser that prints. Raises ConfigError where none is found."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise ConfigError(
            "--pdf prints the page with Chromium, and none is installed here; leave it out, and print "
            "report.html from any browser"
        )
    return found


def printed(page: Path, chromium: str) -> Path:
    """The PDF beside a page. Raises ConfigError where the browser fails."""
    out = page.with_suffix(".pdf")
    out.unlink(missing_ok=True)
    # Chromium's sandbox does not start for root, as in a container; the page is ours, and has no script.
    root = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with TemporaryDirectory() as profile:
        order = [chromium, *FLAGS, *root, f"--user-data-dir={profile}", f"--print-to-pdf={out.absolute()}"]
        try:
            subprocess.run(
                [*order, page.absolute().as_uri()], capture_output=True, timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(
                f"{chromium} did not print the page ({error}); print report.html yourself"
            ) from error
    if not out.is_file():
        raise ConfigError(f"{chromium} printed nothing; print report.html from any browser")
    return out
