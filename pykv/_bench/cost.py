"""
cost.py -- what a month costs: RAM and disk for so many keys, by the bytes a key that were
measured in this run, at prices the user can set.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from pykv._bench.summary import ram_row, results

COUNTS = 1_000_000, 1_000_000_000
# A gigabyte a month, in any currency. Assumed, not measured: set your own.
RAM_PRICE = 3.0
DISK_PRICE = 0.1


class Cost(NamedTuple):
    """Gigabytes (10 ** 9 bytes) of RAM and disk, and the price of both for a month."""

    ram_gb: float
    disk_gb: float
    ram_price: float
    disk_price: float

    @property
    def price(self) -> float:
        """Of both together."""
        return self.ram_price + self.disk_price


def cost_of(ram_bytes: float, disk_bytes: float, ram_price: float, disk_price: float) -> Cost:
    """Return what so many bytes cost, by prices a gigabyte."""
    ram, disk = ram_bytes / 1e9, disk_bytes / 1e9
    return Cost(ram, disk, ram * ram_price, disk * disk_price)


def costs(document: dict[str, Any], keys: int) -> dict[str, Cost]:
    """
    Return what *keys* of the size that was measured cost with each engine, by its name.

    RAM is what it took, up to what its settings keep it to; disk what its files had after all was
    overwritten.
    """
    found = results(document, "operations", "made up")
    disk = {
        each["engine"]: each["figures"]["overwritten_disk_bytes"] / each["keys"]
        for each in found
        if "overwritten_disk_bytes" in each["figures"]
    }
    prices = document["prices"]
    bills = {}
    for engine, ram in ram_row(document).figures.items():
        about = document["engines"][engine]
        if engine in disk or not about["persistent"]:
            taken = min(keys * ram.median, about["ram_max"] or math.inf)
            stored = keys * disk.get(engine, 0.0)
            bills[engine] = cost_of(taken, stored, prices["ram"], prices["disk"])
    return bills
