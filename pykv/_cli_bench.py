"""_cli_bench.py -- the command bench: the main job, and pykv beside its peers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pykv._cli_common import Failure, UsageFailure

NEEDS = {"hdrh", "matplotlib"}  # of the extra `bench`, beside what `cli` has
COUNT = click.IntRange(1)
PRICE = click.FloatRange(0)


@click.command()
@click.option("--quick", "size", flag_value="quick", default=True, help="The main job: a minute.")
@click.option("--standard", "size", flag_value="standard", help="Beside peers: some minutes.")
@click.option("--full", "size", flag_value="full", help="The same with more of everything: hours.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write JSON and HTML.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to keep the stores.")
@click.option("--peers", help="Which, by name, with commas between; by default all that are here.")
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="JSON lines, CSV, TSV or a directory, instead of pairs made up.",
)
@click.option("--keys", type=COUNT, help="How many to compare with.")
@click.option("--key-bytes", type=COUNT, help="Bytes of a key; 16.")
@click.option("--value-bytes", type=COUNT, help="Bytes of a value; 100.")
@click.option("--ram-price", type=PRICE, help="Of a gigabyte of RAM for a month; 3.")
@click.option("--disk-price", type=PRICE, help="Of a gigabyte of disk for a month; 0.1.")
def bench(size: str, out: Path | None, directory: Path | None, **compared: Any) -> None:
    """
    Measure, check every answer, and show what each choice costs.

    --quick stores the Python standard library, reads it back and kills writers. --standard and
    --full run pykv beside its peers, YCSB and the trade-offs, and write report.html and
    results.json to OUT, by default here.

    Exit code 1 if a check fails. The stores are made in a new directory in DIRECTORY, by default
    that of temporary files, and removed.
    """
    given = {name: value for name, value in compared.items() if value is not None}
    if size == "quick":
        if given:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageFailure(f"{named}: only with --standard or --full")
        from pykv._bench.quick import run as run_quick

        sys.exit(run_quick(directory=directory, out=out))
    try:
        from pykv._bench.compare import run
        from pykv._bench.plan import Options, check_names

        if "peers" in given:
            given["peers"] = check_names(given["peers"])
        sys.exit(run(Options(size=size, **given), directory=directory, out=out))
    except ModuleNotFoundError as error:
        if error.name not in NEEDS:
            raise
        raise Failure(f"{error.name} is missing: pip install 'pykv-engine[bench]'") from None
    except ValueError as error:
        raise UsageFailure(str(error)) from None
