"""Errors in one sentence with the way out; for a wrong command line typer would draw a box of five."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import typer
from typer.exceptions import TyperException

from purify_plugins.errors import PurifyError
from purify_plugins.utils.printable import shown


@contextmanager
def advising(usage: bool = True) -> Iterator[None]:
    """Print an error as one sentence and end with its exit code; `usage`: a wrong command line too."""
    try:
        yield
    except TyperException as error:
        if not usage:
            raise
        typer.echo(f"error: {sentence(error)}", err=True)
        raise typer.Exit(getattr(error, "exit_code", 2)) from None
    except PurifyError as error:
        typer.echo(f"error: {shown(' '.join(str(error).split()))}", err=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


def sentence(error: Any) -> str:
    """A usage error as a sentence; typer's error classes are private, so attributes distinguish them."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    command = _command(context)
    if getattr(error, "possibilities", ()) != ():
        return (
            f"`{command}` has no option {error.option_name}; {_nearest(error.option_name, context, command)}"
        )
    if parameter is None:
        return _other(error, command)
    if not error.message:
        return f"`{command}` needs {_name(parameter)}: {_lower(_help(parameter))}; see `{command} --help`"
    return f"{_name(parameter)} {_value(error)}"


def _nearest(option: str, context: Any, command: str) -> str:
    known = [name for each in context.command.params for name in each.opts] if context else []
    near = get_close_matches(option, known, n=1)
    return f"did you mean {near[0]}?" if near else f"see `{command} --help`"


def _other(error: Any, command: str) -> str:
    """An unknown command, an extra argument or a missing value, distinguished by the message."""
    said = _plain(error.format_message())
    if found := re.fullmatch(r"no such command '(.*?)'\.? ?(.*)", said):
        advice = _lower(found[2]) or f"see `{command} --help`"
        return f"`{command}` has no command {found[1]!r}; {advice}"
    if found := re.fullmatch(r"got unexpected extra arguments?(?:\(s\))? \((.*)\)", said, re.DOTALL):
        return f"`{command}` does not take {found[1]!r}; quote a text with spaces, or see `{command} --help`"
    if not said:  # no command was named, and the group's help has been printed
        return f"`{command}` needs a command"
    return f"{said}; see `{command} --help`"


def _value(error: Any) -> str:
    """What is wrong with a value, from the pydantic error that typer chains."""
    from pydantic import ValidationError

    from purify_plugins.utils.wording import must_be

    cause = error.__cause__
    said = must_be(cause.errors()[0]) if isinstance(cause, ValidationError) else _plain(error.message)
    return said if said.startswith("must be") else f"is wrong: {said}"


def _command(context: Any) -> str:
    """The command as typed, independent of the program's name."""
    words = context.command_path.split()[1:] if context else []
    return " ".join(["purify", *(word for word in words if re.fullmatch("[a-z]+", word))])


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name).upper()
    return str(max(parameter.opts, key=len))


def _help(parameter: Any) -> str:
    text = getattr(parameter, "help", None) or "it is required"
    return str(text).replace("\\[", "[").rstrip(".")


def _plain(message: str) -> str:
    return _lower(message.strip().rstrip("."))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
