"""_stats.py -- what a store tells about itself: figures, and what verification found."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from pykv._core import ffi


@dataclass(frozen=True)
class Stats:
    """
    Figures of a store at one moment. Field for field `struct pykv_stats` in csrc/pykv.h.

    Attributes:
        keys: Keys present; expired ones count until they are removed.
        version: Of the newest batch.
        live_bytes: Bytes of the log that hold current records, headers included.
        dead_bytes: Bytes of the log that hold replaced or deleted ones.
        disk_bytes: Bytes of disk that all files of the store occupy.
        keydir_bytes: Bytes of RAM of the keydir: buckets, overflow nodes, their reserve.
        keydir_buckets: Buckets of 8 slots, 64 bytes each.
        keydir_nodes: Overflow nodes in use, 32 bytes each.
        segments: Files of the log.
        log_bytes: live_bytes + dead_bytes.
        unsynced_bytes: Bytes of the log that a power cut could take now.
        checkpoint_version: The version up to which the newest checkpoint reaches; 0: none.
        processes: Processes that have the store open.
        syncs: Syncs of the log since the keydir was made.
        recovered_records: Records replayed when this process opened the store.
        damaged_records: Damaged places that repair skipped at this open.
        open_us: Microseconds that opening took.
        snapshots: Snapshots, transactions and iterations that are open, in all processes.
        snapshot_versions: Of the oldest of them: versions (batches) published since it was taken.
        snapshot_bytes: Bytes of the log written since, which it keeps from being reclaimed.
        snapshot_ms: Milliseconds since it was taken.
    """

    keys: int
    version: int
    live_bytes: int
    dead_bytes: int
    disk_bytes: int
    keydir_bytes: int
    keydir_buckets: int
    keydir_nodes: int
    segments: int
    log_bytes: int
    unsynced_bytes: int
    checkpoint_version: int
    processes: int
    syncs: int
    recovered_records: int
    damaged_records: int
    open_us: int
    snapshots: int
    snapshot_versions: int
    snapshot_bytes: int
    snapshot_ms: int

    @classmethod
    def _from_c(cls, stats: Any) -> Stats:
        return cls(**{field.name: getattr(stats, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Damage:
    """
    A place on disk whose bytes do not verify.

    Attributes:
        path: The file's name within the store.
        offset: Bytes from the file's start.
        size: Bytes that are damaged, as far as can be told.
    """

    path: str
    offset: int
    size: int


@dataclass(frozen=True)
class Report:
    """
    What `Store.verify` read and found. `struct pykv_report` in csrc/pykv.h.

    Attributes:
        segments: Files of the log that were read.
        records: Records that verified.
        bytes: Bytes that were read and verified.
        damage_count: Damaged places in all.
        damage: The first 64 of them.
    """

    segments: int
    records: int
    bytes: int
    damage_count: int
    damage: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """Whether all is whole."""
        return self.damage_count == 0

    @classmethod
    def _from_c(cls, report: Any) -> Report:
        listed = min(report.damage_count, len(report.damage))
        damage = tuple(
            Damage(ffi.string(place.path).decode("utf-8", "replace"), place.offset, place.size)
            for place in report.damage[0:listed]
        )
        return cls(report.segments, report.records, report.bytes, report.damage_count, damage)
