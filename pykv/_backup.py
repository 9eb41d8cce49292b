"""
_backup.py -- copies of a store: backup, restore, repair.

A backup is made by the engine (csrc/backup.c), a portion at a time, so that Ctrl-C gets through. To
restore is the same, the other way round, and all of it is read once more. To repair is to read what
is whole with everything in memory, and to write it to a new store.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pykv._core import ffi, lib
from pykv._open import open, open_aside
from pykv._records import batches_of, load_batch, records_of
from pykv._stats import Damage, Report, damage_of
from pykv.errors import CorruptError, InvalidError, MissingError, failure

if TYPE_CHECKING:
    from pykv._store import Store

StrPath = str | os.PathLike[str]
Progress = Callable[[int, int], None]

BATCH_KEYS = 1000


@dataclass(frozen=True)
class Backup:
    """
    What `Store.backup` did. `struct pykv_backup_progress` in csrc/pykv.h.

    Attributes:
        version: Of the newest batch that the backup holds.
        keys: That are present in it; expired ones count until they are removed.
        linked: Bytes of files that are one with those of the store.
        copied: Bytes that were copied.
        kept: Bytes that an older backup had already.
        removed: Files of an older backup that are no longer needed.
    """

    version: int
    keys: int
    linked: int
    copied: int
    kept: int
    removed: int


@dataclass(frozen=True)
class Repair:
    """
    What `repair` saved, and what it could not.

    Attributes:
        keys: That are in the new store.
        records: That verified, replaced and deleted ones among them.
        damage: Each place that is not whole: a file and an offset. Of a segment that is missing
            *size* is what it had, if that is known.
    """

    keys: int
    records: int
    damage: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """Whether everything was whole."""
        return not self.damage


def back_up(store: Store, dest: StrPath, flags: int, progress: Progress | None) -> Backup:
    """Make the copy that `Store.backup` and `restore` promise."""
    place = Path(os.fsdecode(dest)).absolute()
    if place.resolve().is_relative_to(Path(store.path).resolve()):
        raise InvalidError(f"{place} is the store itself or lies in it")
    opened, state = ffi.new("struct pykv_backup **"), ffi.new("struct pykv_backup_progress *")
    status = lib.pykv_backup_open(store._handle, os.fsencode(dest), flags, opened)
    if status < 0:
        raise failure(status)
    try:
        while status == lib.PYKV_OK:
            status = lib.pykv_backup_step(opened[0], state)
            if status < 0:
                raise failure(status)
            if progress is not None:
                progress(state.done, state.total)
    finally:
        lib.pykv_backup_close(opened[0])
    return Backup(state.version, state.keys, state.linked, state.copied, state.kept, state.removed)


def restore(src: StrPath, dest: StrPath, *, progress: Progress | None = None) -> Report:
    """
    Make a store of a backup: copy all of it to *dest*, and read it there.

    Args:
        src: A backup, or any store: one that others write to gives the present instant.
        dest: A new or empty directory.
        progress: Called now and then with the bytes that are copied, and those in all.
    Returns:
        What was read and verified in *dest*.
    Raises:
        InvalidError: *dest* holds a store or a backup.
        NotAStoreError: *dest* holds other files.
        CorruptError: Something is damaged; *dest* stays, for `repair`.
        StoreFullError: The disk is full.

    Nothing is shared with the backup afterwards. The new store has the identity of the old one, so
    that it can take over its backup; of two that go on, only one can, and `Store.backup` of the
    other refuses.

    >>> with pykv.open("users.kv") as users:
    ...     users[b"1"] = b"Ada"
    ...     users.backup("users.backup").keys
    1
    >>> pykv.restore("users.backup", "restored.kv").ok
    True
    >>> with pykv.open("restored.kv") as restored:
    ...     restored[b"1"]
    b'Ada'

    Source: `pykv_backup_open` in csrc/pykv.h.
    """
    with open(src, "r") as backup:
        back_up(backup, dest, lib.PYKV_BACKUP_RESTORE, progress)
    with open(dest, "w") as db:
        report = db.verify()
    if not report.ok:
        place = report.damage[0]
        raise CorruptError(
            f"what was restored is damaged in {report.damage_count:,} places",
            path=place.path,
            offset=place.offset,
        )
    return report


def repair(src: StrPath, dest: StrPath, *, progress: Progress | None = None) -> Repair:
    """
    Write a new store with all that is whole in a damaged one, which is left as it is.

    Of each key the newest record that verifies counts. So where the newest one is damaged, an older
    value may come back, or a key that had been deleted: see the places in the result. All segments
    are read, and checkpoints are not used.

    Args:
        src: A store or a backup that nobody has open.
        dest: A directory that does not exist, or is empty. It appears when all of it is written.
        progress: Called now and then with the keys that are written, and those in all.
    Returns:
        What was saved, and each place that is not whole.
    Raises:
        MissingError: There is no store at *src*, or no directory above *dest*.
        BusyError: *src* is open.
        InvalidError: *dest* is there, and not empty.
        StoreFullError: The disk is full; *dest* does not appear.

    >>> with pykv.open("users.kv") as users:
    ...     users[b"1"] = b"Ada"
    >>> pykv.repair("users.kv", "repaired.kv").ok
    True

    Cost: reads the log twice, and needs memory for the keydir. Expiries are kept, versions are not.
    Source: `pykv_open` with PYKV_REPAIR_ASIDE, `pykv_verify_step` in csrc/pykv.h.
    """
    place = Path(os.fsdecode(dest)).absolute()
    if place.resolve().is_relative_to(Path(os.fsdecode(src)).resolve()):
        raise InvalidError(f"{place} is the store itself or lies in it")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InvalidError(f"{place} is there already: a repair writes a new store")
    if not place.parent.is_dir():
        raise MissingError(f"the directory above {place} does not exist", path=str(place))
    with open_aside(src) as damaged:
        report = damaged.verify()
        damage = _met(damaged) + report.damage
        made = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
        try:
            keys = _write(damaged, made, _mode(Path(os.fsdecode(src))), progress)
            made.rename(place)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    _sync_directory(place.parent)
    return Repair(keys, report.records, damage)


def _met(damaged: Store) -> tuple[Damage, ...]:
    """Return what recovery went without, beside records."""
    places, count = ffi.new("struct pykv_damage **"), ffi.new("size_t *")
    status = lib.pykv_damage_met(damaged._handle, places, count)
    if status < 0:
        raise failure(status)
    return damage_of(places[0], count[0])


def _mode(src: Path) -> int:
    """Return the permission bits that the files of the store have."""
    for path in sorted(src.glob("segment-*")):
        return path.stat().st_mode & 0o777 | 0o600
    return 0o600


def _write(damaged: Store, made: Path, mode: int, progress: Progress | None) -> int:
    """Write the keys of *damaged* to a new store; return how many they are."""
    written, total = 0, len(damaged)
    with open(made, "n", mode=mode) as db:
        for batch in batches_of(records_of(damaged), BATCH_KEYS):
            load_batch(db, 0, batch)
            written += len(batch)
            if progress is not None:
                progress(written, max(written, total))
    made.chmod(mode | (mode & 0o444) >> 2)
    return written


def _sync_directory(path: Path) -> None:
    """Make the names in a directory last."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
