"""Email addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator

from purify_hooks.private.finders.finder import CHECKED, Hit

EMAIL = re.compile(r"[^\s@<>()\[\]{}\"',;:\\]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")


class Emails:
    """Email addresses."""

    def hits(self, text: str) -> Iterator[Hit]:
        for match in EMAIL.finditer(text):
            yield Hit(*match.span(), "email", CHECKED)
