"""
_cli.py -- the command line: get, put, delete, scan, load, dump, stats, verify, bench.

Exit status: 0 done; 1 the key is absent, the store is damaged, or a failure that one line on stderr
tells; 2 wrong usage. Progress goes to stderr, and only to a terminal.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

import pykv

LOAD_BATCH = 1_000  # pairs that are written at once
STORE = click.argument("store", type=click.Path(path_type=Path))


class _Group(click.Group):
    """Turns every failure of the store into one line and status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except pykv.Error as error:
            raise click.ClickException(str(error)) from error


def progress() -> Progress:
    """A progress bar on stderr; silent where that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pykv.__version__, prog_name="pykv")
def cli() -> None:
    """An embedded key-value store. STORE is the directory that holds it."""


@cli.command()
@STORE
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, value and version.")
def get(store: Path, key: str, as_json: bool) -> None:
    """Print the value stored under KEY; status 1 if there is none."""
    with pykv.open(store, "r") as db:
        found = db.get_with_version(key.encode())
    if found is None:
        click.echo(f"pykv: no key {key!r} in {store}", err=True)
        sys.exit(1)
    value, version = found
    if as_json:
        click.echo(json.dumps({**_row(key.encode(), value), "version": version}))
    else:
        sys.stdout.buffer.write(value + b"\n")


@cli.command()
@STORE
@click.argument("key")
@click.argument("value", required=False)
@click.option("--ttl", type=click.FloatRange(min=0, min_open=True), help="Seconds to live.")
def put(store: Path, key: str, value: str | None, ttl: float | None) -> None:
    """Store VALUE under KEY; without VALUE, what standard input holds."""
    content = sys.stdin.buffer.read() if value is None else value.encode()
    with pykv.open(store) as db:
        db.put(key.encode(), content, ttl=ttl)


@cli.command()
@STORE
@click.argument("keys", nargs=-1, required=True)
def delete(store: Path, keys: tuple[str, ...]) -> None:
    """Remove KEYS as one batch; status 1 if none of them was there."""
    with pykv.open(store, "w") as db:
        removed = db.delete_many([key.encode() for key in keys])
    click.echo(f"{removed} removed")
    sys.exit(0 if removed else 1)


@cli.command()
@STORE
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--limit", type=click.IntRange(min=0), help="At most so many.")
@click.option("--keys", "only_keys", is_flag=True, help="Without the values.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines, as dump writes them.")
def scan(store: Path, prefix: str, limit: int | None, only_keys: bool, as_json: bool) -> None:
    """List keys and values, in no order."""
    with pykv.open(store, "r") as db:
        for count, (key, value) in enumerate(db.items(prefix=prefix.encode())):
            if count == limit:
                break
            if as_json:
                click.echo(json.dumps(_row(key, None if only_keys else value)))
            else:
                sys.stdout.buffer.write(key + (b"" if only_keys else b"\t" + value) + b"\n")


@cli.command()
@STORE
@click.argument("file", type=click.File("w"), default="-")
@click.option("--prefix", default="", help="Only keys that begin so.")
def dump(store: Path, file: Any, prefix: str) -> None:
    """Write all keys and values as JSON lines, to FILE or standard output."""
    with pykv.open(store, "r") as db, progress() as bar:
        task = bar.add_task("dump", total=len(db))
        for count, (key, value) in enumerate(db.items(prefix=prefix.encode()), 1):
            file.write(json.dumps(_row(key, value)) + "\n")
            if count % LOAD_BATCH == 0:
                bar.update(task, completed=count)


@cli.command()
@STORE
@click.argument("file", type=click.File("r"), default="-")
@click.option("--durable", is_flag=True, help="Sync each batch of 1,000.")
def load(store: Path, file: Any, durable: bool) -> None:
    """Store the JSON lines of FILE or standard input, as dump writes them."""
    loaded = 0
    with pykv.open(store) as db, progress() as bar:
        task = bar.add_task("load", total=None)
        pairs: dict[bytes, bytes] = {}
        for key, value in _parse(file):
            pairs[key] = value
            loaded += 1
            if len(pairs) == LOAD_BATCH:
                db.put_many(pairs, durable=durable or None)
                pairs.clear()
                bar.update(task, completed=loaded)
        db.put_many(pairs, durable=durable or None)
    click.echo(f"{loaded} loaded", err=True)


@cli.command()
@STORE
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
def stats(store: Path, as_json: bool) -> None:
    """Print the figures of the store."""
    with pykv.open(store, "r") as db:
        figures = asdict(db.stats())
    if as_json:
        click.echo(json.dumps(figures))
        return
    table = Table("figure", "value", title=str(store))
    table.columns[1].justify = "right"
    for name, value in figures.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)


@cli.command()
@STORE
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
def verify(store: Path, as_json: bool) -> None:
    """Read and check every record; status 1 if any is damaged."""
    with pykv.open(store, "r") as db:
        report = db.verify()
    if as_json:
        click.echo(json.dumps({"ok": report.ok, **asdict(report)}))
    else:
        click.echo(f"{report.segments} segments, {report.records} records, {report.bytes:,} bytes")
        for damage in report.damage:
            click.echo(f"damaged: {damage.path}, {damage.size} bytes at offset {damage.offset}")
        click.echo("all is whole" if report.ok else f"{report.damage_count} damaged places")
    sys.exit(0 if report.ok else 1)


@cli.command()
@click.option("--quick", is_flag=True, help="Under a minute, on the standard library's sources.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to keep the stores.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write figures here.")
def bench(quick: bool, directory: Path | None, json_file: Path | None) -> None:
    """Store real data, read it back, kill writers, and print what each choice costs."""
    if not quick:
        raise click.UsageError("name the size of the run: --quick")
    from pykv._bench import run_quick

    sys.exit(run_quick(directory, json_file))


# ---- JSON lines: text where it is text, base64 where it is not ----


def _field(name: str, content: bytes) -> tuple[str, str]:
    try:
        return name, content.decode()
    except UnicodeDecodeError:
        return f"{name}_base64", base64.b64encode(content).decode()


def _row(key: bytes, value: bytes | None) -> dict[str, str]:
    fields = [_field("key", key)]
    if value is not None:
        fields.append(_field("value", value))
    return dict(fields)


def _content(row: dict[str, Any], name: Literal["key", "value"], line: int) -> bytes:
    if isinstance(row.get(name), str):
        return str(row[name]).encode()
    try:
        return base64.b64decode(row[f"{name}_base64"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise click.ClickException(f'line {line}: no "{name}" or "{name}_base64" in it') from None


def _parse(file: Any) -> Iterator[tuple[bytes, bytes]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise click.ClickException(f"line {line} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise click.ClickException(f"line {line} is not a JSON object")
        yield _content(row, "key", line), _content(row, "value", line)
