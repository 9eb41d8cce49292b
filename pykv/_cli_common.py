"""
_cli_common.py -- what all commands share: exit codes, bytes out of arguments, progress bars.

Exit codes: 0, done; 1, the answer is no (a key is absent, damage was found, a check failed) or the
command failed, which one line on stderr tells; 2, the command line is not understood.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

import pykv


class Failure(click.ClickException):
    """What ends a command: one line on stderr, and exit code 1."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UsageFailure(Failure):
    """An argument is out of its range: exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """A group of commands that turns every pykv.Error, and every OSError, into a Failure."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the command line names."""
        try:
            result = super().invoke(ctx)
            click.echo(nl=False)  # flushes, if there is a standard output
        except pykv.InvalidError as error:
            raise UsageFailure(describe(error)) from error
        except pykv.Error as error:
            raise Failure(describe(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads on: click ends the command without a word
                raise
            _drop_output()
            raise Failure(_told(error)) from error
        return result


def _told(error: OSError) -> str:
    text = error.strerror or str(error)
    return text if error.filename is None else f"{os.fsdecode(error.filename)}: {text}"


def _drop_output() -> None:
    """Let go of what standard output does not take: Python would try, and fail, again at exit."""
    try:
        click.echo(nl=False)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe(error: pykv.Error) -> str:
    """Return the message of *error*, with file and offset where it does not name the file."""
    text = str(error)
    if error.path is not None and error.path not in text:
        where = error.path if error.offset is None else f"{error.path}, offset {error.offset}"
        text += f" ({where})"
    return text


def argument_bytes(text: str, is_base64: bool) -> bytes:
    """Return the bytes that an argument stands for: those of the shell, or decoded base64."""
    if is_base64:
        try:
            return decode_base64(text, "the argument")
        except Failure as failure:
            raise UsageFailure(failure.message) from None
    return os.fsencode(text)


def decode_base64(text: str, what: str) -> bytes:
    """Decode *text*; a Failure if it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Failure(f"{what} is no base64: {text[:60]!r}") from None


def write_json(document: object) -> None:
    """Print *document* on stdout, on one line."""
    click.echo(json.dumps(document))


def shown(data: bytes) -> str:
    """Return *data* on one line of printable text: backslashes before what is none."""
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def counted(count: int, thing: str) -> str:
    """Return "1 thing" or "2,000 things"."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def human_size(count: float) -> str:
    """Return a number of bytes as a person reads it: "12.3 MiB"."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 1024 or unit == "TiB":
            break
    return f"{count:,.1f} {unit}"


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """
    Show a bar on stderr while the block runs, if stderr is a terminal.

    Args:
        label: What is under way.
        total: Of what the amounts add up to; None: unknown, the bar shows that something goes on.
    Yields:
        A function to call with each amount that is done.
    """
    if not sys.stderr.isatty():
        yield lambda _amount: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        task = bars.add_task(label, total=total)
        yield lambda amount: bars.advance(task, amount)


def shares(total: int, advance: Callable[[int], None]) -> Callable[[int, int], None]:
    """Return a progress function for a bar of *total*, whatever amounts it is told."""
    shown = 0

    def tell(done: int, of: int) -> None:
        nonlocal shown
        share = total * done // of if of else total
        advance(share - shown)
        shown = share

    return tell
