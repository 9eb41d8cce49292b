"""
_cli.py -- the command line: get, put, delete, scan, stats, compact, verify, backup, restore,
repair. The command dump is in _cli_rows.py, load in _cli_load.py, bench in _cli_bench.py, exit
codes and progress bars in _cli_common.py.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import islice
from typing import Any

import click
from rich.console import Console
from rich.table import Table

import pykv
from pykv._cli_bench import bench
from pykv._cli_common import (
    Commands,
    Failure,
    argument_bytes,
    counted,
    human_size,
    progress,
    shares,
    shown,
    write_json,
)
from pykv._cli_load import load
from pykv._cli_rows import dump, line_of, row_of
from pykv._records import expiry_of, records_of

STORE = click.argument("store", type=click.Path())
BASE64 = click.option("--base64", "is_base64", is_flag=True, help="Arguments are in base64.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a script.")
DURABLE = click.option("--durable", is_flag=True, help="Return when it survives a power cut.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pykv.__version__, prog_name="pykv")
def cli() -> None:
    """
    An embedded key-value store. STORE is the directory that holds it.

    Exit codes: 0, done; 1, a key is absent, damage was found, a check failed, or a failure that one
    line on stderr tells; 2, wrong usage.
    """


# ---- One key ----


@cli.command()
@STORE
@click.argument("key")
@BASE64
@JSON
def get(store: str, key: str, is_base64: bool, as_json: bool) -> None:
    """
    Print the value stored under KEY: its very bytes, with a line end only on a terminal.

    With --json: the line that dump writes.
    """
    name = argument_bytes(key, is_base64)
    with pykv.open(store, "r") as db:
        found = db.get_with_version(name)
        if found is None:
            raise Failure(f"there is no key {shown(name)} in {store}")
        value, version = found
        expires_ms = expiry_of(db, name)
    stdout = sys.stdout.buffer
    if as_json:
        stdout.write(line_of(row_of(name, value, expires_ms, version)))
    else:
        stdout.write(value)
        if sys.stdout.isatty() and not value.endswith(b"\n"):
            stdout.write(b"\n")


@cli.command()
@STORE
@click.argument("key")
@click.argument("value", required=False)
@click.option("--ttl", type=float, help="Seconds from now after which it is gone.")
@DURABLE
@BASE64
def put(
    store: str, key: str, value: str | None, ttl: float | None, durable: bool, is_base64: bool
) -> None:
    """
    Store VALUE under KEY; without VALUE, what standard input holds, to its last byte.

    STORE is created if missing.
    """
    name = argument_bytes(key, is_base64)
    content = sys.stdin.buffer.read() if value is None else argument_bytes(value, is_base64)
    with pykv.open(store) as db:
        db.put(name, content, ttl=ttl, durable=durable or None)


@cli.command()
@STORE
@click.argument("keys", nargs=-1, required=True)
@DURABLE
@BASE64
@JSON
def delete(
    store: str, keys: tuple[str, ...], durable: bool, is_base64: bool, as_json: bool
) -> None:
    """Remove KEYS as one batch; exit code 1 if none of them was there."""
    names = list(dict.fromkeys(argument_bytes(key, is_base64) for key in keys))
    with pykv.open(store, "w") as db:
        removed = db.delete_many(names)
        if durable:
            db.sync()
    if as_json:
        write_json({"removed": removed, "absent": len(names) - removed})
    else:
        click.echo(f"{removed:,} removed")
    if not removed:
        one = len(names) == 1
        missing = f"there is no key {shown(names[0])} in" if one else "none of the keys is in"
        raise Failure(f"{missing} {store}")


# ---- All keys ----


@cli.command()
@STORE
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--limit", type=click.IntRange(0), help="At most so many.")
@click.option("--keys", "only_keys", is_flag=True, help="Without the values.")
@BASE64
@JSON
def scan(
    store: str, prefix: str, limit: int | None, only_keys: bool, is_base64: bool, as_json: bool
) -> None:
    """
    List keys and values, a line each, in no order.

    Between key and value is a tab; what cannot be printed is escaped. With --json, the lines are
    those of dump.
    """
    start = argument_bytes(prefix, is_base64)
    stdout = sys.stdout.buffer
    with pykv.open(store, "r") as db:
        if only_keys:
            for key in islice(db.keys(prefix=start), limit):
                stdout.write(line_of(row_of(key)) if as_json else shown(key).encode() + b"\n")
            return
        for record in islice(records_of(db, start), limit):
            if as_json:
                stdout.write(line_of(row_of(*record)))
            else:
                stdout.write(f"{shown(record.key)}\t{shown(record.value)}\n".encode())


# ---- The store itself ----


@cli.command()
@STORE
@JSON
def stats(store: str, as_json: bool) -> None:
    """Print the figures of the store."""
    with pykv.open(store, "r") as db:
        figures: dict[str, Any] = asdict(db.stats())
    if as_json:
        write_json(figures)
        return
    table = Table("figure", "value", "", title=store)
    table.columns[1].justify = table.columns[2].justify = "right"
    for name, value in figures.items():
        table.add_row(name, f"{value:,}", human_size(value) if name.endswith("_bytes") else "")
    Console().print(table)


@cli.command()
@STORE
@JSON
def compact(store: str, as_json: bool) -> None:
    """Give back all dead space now, beside whoever uses the store."""
    with pykv.open(store, "w") as db:
        before = db.stats()
        with progress("compact", 1000) as advance:
            db.compact(shares(1000, advance))
        after = db.stats()
    figures = {"log_bytes_before": before.log_bytes, "log_bytes_after": after.log_bytes}
    if as_json:
        write_json(figures | {"live_bytes": after.live_bytes})
    else:
        sizes = (human_size(each) for each in (before.log_bytes, after.log_bytes))
        click.echo(" -> ".join(sizes) + f", {human_size(after.live_bytes)} of it live")


@cli.command()
@STORE
@click.option("--repair", is_flag=True, help="Open in spite of damage, without what is damaged.")
@JSON
def verify(store: str, repair: bool, as_json: bool) -> None:
    """
    Read and check every record, and the table in memory; exit code 1 if any is damaged.

    A store that damage keeps from opening opens with --repair: what is whole is kept, and dump
    writes it out.
    """
    with pykv.open(store, "w" if repair else "r", repair=repair) as db:
        with progress("verify", 1000) as advance:
            report = db.verify(shares(1000, advance))
        left_out = db.stats().damaged_records
    if as_json:
        write_json({"ok": report.ok, "repair_skipped": left_out, **asdict(report)})
    else:
        read = counted(report.segments, "segment"), counted(report.records, "record")
        click.echo(f"{', '.join(read)}, {report.bytes:,} bytes")
        for place in report.damage:
            click.echo(f"damaged: {place.path}, {place.size:,} bytes at offset {place.offset}")
        if left_out:
            click.echo(f"left out by --repair: {counted(left_out, 'damaged place')}")
        if report.skipped_count:
            places = counted(report.skipped_count, "damaged place")
            click.echo(f"skipped: {places}, {report.skipped_bytes:,} bytes that no key needs")
        if report.ok:
            click.echo("every key is whole" if report.skipped_count else "all is whole")
    if not report.ok:
        raise Failure(counted(report.damage_count, "damaged place"))


@cli.command()
@STORE
@click.argument("dest", type=click.Path())
@click.option("--copy", is_flag=True, help="Copy files that could get a second name instead.")
@JSON
def backup(store: str, dest: str, copy: bool, as_json: bool) -> None:
    """
    Copy this instant of STORE to DEST, beside whoever uses it.

    DEST is a new directory, or an older backup of STORE: then only what is new moves.
    """
    with pykv.open(store, "w") as db, progress("backup", 1000) as advance:
        done = db.backup(dest, link=not copy, progress=shares(1000, advance))
    if as_json:
        write_json(asdict(done))
    else:
        sizes = {"copied": done.copied, "linked": done.linked, "kept": done.kept}
        told = ", ".join(f"{human_size(size)} {what}" for what, size in sizes.items() if size)
        click.echo(f"{counted(done.keys, 'key')}{': ' if told else ''}{told}")


@cli.command()
@click.argument("src", type=click.Path())
@click.argument("dest", type=click.Path())
@JSON
def restore(src: str, dest: str, as_json: bool) -> None:
    """Make a store of the backup SRC in the new directory DEST, and read all of it there."""
    with progress("restore", 1000) as advance:
        report = pykv.restore(src, dest, progress=shares(1000, advance))
    if as_json:
        write_json(asdict(report))
    else:
        read = counted(report.segments, "segment"), counted(report.records, "record")
        click.echo(f"{', '.join(read)}, {report.bytes:,} bytes, all is whole")


@cli.command()
@click.argument("src", type=click.Path())
@click.argument("dest", type=click.Path())
@JSON
def repair(src: str, dest: str, as_json: bool) -> None:
    """
    Write what is whole of the damaged store SRC to the new store DEST, and tell what is not.

    SRC is left as it is. The exit code is 0 also where something was damaged.
    """
    with progress("repair", 1000) as advance:
        result = pykv.repair(src, dest, progress=shares(1000, advance))
    if as_json:
        write_json({"ok": result.ok, **asdict(result)})
        return
    for place in result.damage:
        click.echo(f"damaged: {place.path}, {place.size:,} bytes at offset {place.offset}")
    saved = f"{counted(result.keys, 'key')} written to {dest}"
    click.echo(saved if result.damage else f"all is whole; {saved}")


cli.add_command(bench)
cli.add_command(load)
cli.add_command(dump)
