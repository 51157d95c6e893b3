"""Text from an untrusted file, made fit for a line of a terminal."""


def shown(text: str) -> str:
    """The text with control characters escaped: it stays in its line, and cannot move the cursor."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
