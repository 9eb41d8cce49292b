"""
cost.py -- what a month costs: RAM and disk for so many keys, by the bytes a key that were
measured in this run, at prices the user can set.
"""

from __future__ import annotations

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


def cost_of(
    keys: int, ram_per_key: float, disk_per_key: float, ram_price: float, disk_price: float
) -> Cost:
    """Return what *keys* cost, by bytes a key and prices a gigabyte."""
    ram, disk = keys * ram_per_key / 1e9, keys * disk_per_key / 1e9
    return Cost(ram, disk, ram * ram_price, disk * disk_price)


def costs(document: dict[str, Any], keys: int) -> dict[str, Cost]:
    """
    Return what *keys* of the size that was measured cost with each engine, by its name.

    RAM is what the engine cannot do without; disk what its files had after all was overwritten.
    """
    found = results(document, "operations", "made up")
    disk = {
        each["engine"]: each["figures"]["overwritten_disk_bytes"] / each["keys"]
        for each in found
        if "overwritten_disk_bytes" in each["figures"]
    }
    prices = document["prices"]
    return {
        engine: cost_of(keys, ram.median, disk.get(engine, 0.0), prices["ram"], prices["disk"])
        for engine, ram in ram_row(document).figures.items()
        if engine in disk or not document["engines"][engine]["persistent"]
    }
