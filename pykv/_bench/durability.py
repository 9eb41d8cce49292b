"""
durability.py -- what each durability mode of pykv costs, from 1 to 64 committers, against what a
power cut can take.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Literal

import pykv
from pykv._bench.latency import summary

LOST = {  # by a power cut, of what was acknowledged
    "process": "what the system had not written yet: up to half a minute",
    "interval": "the last 100 ms",
    "commit": "nothing",
}
THREADS = (1, 2, 4, 8, 16, 32, 64)
VALUE = bytes(range(100))


def measure(
    directory: Path,
    durability: Literal["process", "interval", "commit"],
    threads: int,
    seconds: float,
) -> dict[str, Any]:
    """
    Let *threads* put for some *seconds*, then reopen the store and look for every put.

    Returns:
        Puts a second, puts a sync, and the summary of what each call took.
    """
    counts = [0] * threads
    times: list[list[int]] = [[] for _ in range(threads)]
    start = threading.Barrier(threads + 1)
    failures: list[pykv.Error] = []
    path = directory / "store"
    with pykv.open(path, durability=durability) as db:

        def work(number: int) -> None:
            clock, mine = time.perf_counter_ns, times[number]
            start.wait()
            end = clock() + int(seconds * 1e9)
            after = 0
            try:
                while after < end:
                    key = b"%d:%d" % (number, counts[number])
                    before = clock()
                    db[key] = VALUE
                    after = clock()
                    mine.append(after - before)
                    counts[number] += 1
            except pykv.Error as error:
                failures.append(error)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        before = db.stats().syncs
        start.wait()
        begun = time.perf_counter()
        for worker in workers:
            worker.join()
        taken = time.perf_counter() - begun
        syncs = db.stats().syncs - before
    problems = [f"{durability}, {threads} threads: {failure}" for failure in failures]
    names = [
        b"%d:%d" % (number, each) for number, count in enumerate(counts) for each in range(count)
    ]
    with pykv.open(path, "r") as db:
        lost = len(names) - db.get_many(names).count(VALUE)
    if lost:
        problems.append(f"{durability}, {threads} threads: {lost:,} puts are not there")
    return {
        "rate": sum(counts) / taken,
        "puts_a_sync": sum(counts) / syncs if syncs else None,
        "latency": summary(each for mine in times for each in mine)["percentiles"],
        "problems": problems,
    }
