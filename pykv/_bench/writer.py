"""
writer.py -- the process that the benchmark kills: it writes one batch after another, and
prints the number of each on stdout once the store has acknowledged it.

    python -m pykv._bench.writer SOURCE PLAN STORE DURABILITY IO FIRST

SOURCE is a store that holds every pair; PLAN a JSON file, the list of the batches, each a list of
keys in latin-1; FIRST the number of the batch to begin with.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pykv


def main(source: str, plan: str, store: str, durability: str, io: str, first: str) -> None:
    """Write the batches from *first* on, until killed or done."""
    batches: list[list[str]] = json.loads(Path(plan).read_text(encoding="ascii"))
    with (
        pykv.open(source, "r") as all_pairs,
        pykv.open(store, durability=durability, io=io) as db,  # type: ignore[arg-type]
    ):
        for number in range(int(first), len(batches)):
            keys = [key.encode("latin-1") for key in batches[number]]
            db.put_many((key, all_pairs[key]) for key in keys)
            os.write(1, b"%d\n" % number)


if __name__ == "__main__":
    main(*sys.argv[1:])
