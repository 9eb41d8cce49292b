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
        log_limit_bytes: What log_bytes may reach before writers wait for compaction.
        held_bytes: Bytes of segments that only wait for snapshots to be closed, or are about to go.
        written_bytes: Bytes appended to the log since the keydir was made.
        copied_bytes: Bytes that compaction copied since then.
        freed_bytes: Bytes that compaction gave back since then.
        compacting: Number of the segment that is being compacted; 0: none.
        compaction_paused: 1 if compaction is paused.
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
    log_limit_bytes: int
    held_bytes: int
    written_bytes: int
    copied_bytes: int
    freed_bytes: int
    compacting: int
    compaction_paused: int

    @property
    def write_amplification(self) -> float:
        """Bytes written to segments for each byte that was appended to the log."""
        return 1 + self.copied_bytes / self.written_bytes if self.written_bytes else 1.0

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


def damage_of(places: Any, count: int) -> tuple[Damage, ...]:
    """Return what an array of `struct pykv_damage` tells."""
    return tuple(
        Damage(
            ffi.string(places[i].path).decode("utf-8", "replace"), places[i].offset, places[i].size
        )
        for i in range(count)
    )


@dataclass(frozen=True)
class Report:
    """
    What `Store.verify` read and found. `struct pykv_report` in csrc/pykv.h.

    Attributes:
        segments: Files of the log that were read.
        records: Records that verified.
        bytes: Bytes that were read and verified.
        damage_count: Damaged places in all. Of a batch only what cannot be read counts.
        damage: All of them, in the order of segments and offsets.
        skipped_count: Damaged places of the log that do not matter: no key leads there, and no
            recovery, because a checkpoint is newer. What a repair left out is among them.
        skipped_bytes: Bytes of these.
    """

    segments: int
    records: int
    bytes: int
    damage_count: int
    damage: tuple[Damage, ...]
    skipped_count: int
    skipped_bytes: int

    @property
    def ok(self) -> bool:
        """Whether every key can be read, now and after a recovery."""
        return self.damage_count == 0

    @classmethod
    def _from_c(cls, report: Any, places: Any) -> Report:
        return cls(
            report.segments,
            report.records,
            report.bytes,
            report.damage_count,
            damage_of(places, report.damage_count),
            report.skipped_count,
            report.skipped_bytes,
        )
