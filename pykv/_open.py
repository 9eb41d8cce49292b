"""_open.py -- pykv.open(): its options, checked and handed to the engine."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any, Literal, TypedDict

from pykv._core import ffi, lib
from pykv._store import Store
from pykv.errors import InvalidError, failure

_FLAGS = {
    "r": lib.PYKV_FLAG_READ,
    "w": lib.PYKV_FLAG_WRITE,
    "c": lib.PYKV_FLAG_CREATE,
    "n": lib.PYKV_FLAG_NEW,
}
_DURABILITIES = {
    "process": lib.PYKV_DURABILITY_PROCESS,
    "interval": lib.PYKV_DURABILITY_INTERVAL,
    "commit": lib.PYKV_DURABILITY_COMMIT,
}
_IO = {"mmap": lib.PYKV_IO_MMAP, "pread": lib.PYKV_IO_PREAD}

Flag = Literal["r", "w", "c", "n"]
Durability = Literal["process", "interval", "commit"]
IO = Literal["mmap", "pread"]


class Options(TypedDict, total=False):
    """What `open` can be told by name."""

    durability: Durability
    interval_ms: int
    io: IO
    max_disk_bytes: int | None
    segment_bytes: int | None
    space_factor: float
    expected_keys: int | None
    repair: bool
    mode: int


SEGMENT_SIZES = (64 << 10, 1 << 30)  # bytes, least and most
INTERVALS = (1, 3_600_000)  # milliseconds
SPACE_FACTORS = (1.1, 100.0)
COUNT_MAX = (1 << 63) - 1


def open(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    flag: Flag = "c",
    *,
    durability: Durability = "process",
    interval_ms: int = 100,
    io: IO = "mmap",
    max_disk_bytes: int | None = None,
    segment_bytes: int | None = None,
    space_factor: float = 2.0,
    expected_keys: int | None = None,
    repair: bool = False,
    mode: int = 0o600,
) -> Store:
    """
    Open the store in directory *path*.

    Args:
        path: A directory that holds this store and nothing else; the one above it exists. 511
            bytes at most.
        flag: As with `dbm.open`. "r": must exist, for reading; "w": must exist; "c": created if
            missing; "n": always new and empty: what an old store at *path* held is removed, for
            those who have it open, too.
        durability: What an acknowledged write survives. "process": the death of every process;
            "interval": also a power cut, but for the last *interval_ms*; "commit": also a power
            cut, and threads that write at once share one sync.
        interval_ms: 1 to 3,600,000 milliseconds; of durability="interval".
        io: "mmap": read through shared mappings, fastest while the data fits in RAM; "pread":
            by system calls, where a failing disk is an exception and never a signal; that needs
            a descriptor for each file of the log (`ulimit -n`; see *segment_bytes*).
        max_disk_bytes: Limit of all segments together, 1 MiB or more; None: that of the disk. What
            is dead is given back before a write is refused. An eighth of it is kept for deletes,
            which are never refused, and for the copies that compaction makes.
        segment_bytes: Bytes of a file of the log, 64 KiB to 1 GiB; None: a sixteenth of the log as
            it grows, 4 to 128 MiB, and of *max_disk_bytes* at most. It is the unit in which dead
            space is reclaimed, and no limit on a value.
        space_factor: All files together may have this many times the live bytes, and two segments
            more, before writers wait for compaction: 1.1 to 100. A low factor saves disk, a high
            one work.
        expected_keys: Sizes the keydir beforehand; None: it grows as needed.
        repair: Skip damaged records during recovery, where otherwise it refuses to open. The
            keys that they held are gone, or older; `stats().damaged_records` counts the places.
            It is needed once: a checkpoint keeps later recoveries from there.
        mode: Permission bits of the files of a new store, exactly these whatever the umask, 0o600
            among them; the directory gets x where they have r. A store that exists keeps the bits
            of its file `lock`, also under "n": `chmod` the directory and all files to change them.
            To share with a group, make the directory beforehand, setgid and of that group: 0o2770.
    Returns:
        The open store: a context manager, and a `MutableMapping[bytes, bytes]`.
    Raises:
        MissingError: No store at *path*, with flag "r" or "w".
        NotAStoreError: *path* is no directory, or holds files that are not pykv's.
        AccessError: No permission.
        NewerFormatError: Written by a later release; nothing was touched.
        CorruptError: Damage before the last durable point. See *repair*.
        BusyError: In use by another machine, or by 1,024 handles.
        InvalidError: An option is out of its range.

    >>> with pykv.open("users.kv") as users:
    ...     users[b"1"] = b"Ada"
    >>> with pykv.open("users.kv", "r") as users:
    ...     users[b"1"]
    b'Ada'

    Cost: O(1) when the keydir of this boot is intact, also after kill -9; else the newest
    checkpoint and the log after it are read. Source: `pykv_open` in csrc/pykv.h.
    """
    name = os.fsencode(path)
    if b"\0" in name:
        raise InvalidError("a path cannot contain a null byte")
    options = ffi.new("struct pykv_options *")
    options.flag = _choice("flag", flag, _FLAGS)
    options.durability = _choice("durability", durability, _DURABILITIES)
    options.io = _choice("io", io, _IO)
    options.repair = bool(repair)
    options.interval_ms = _integer("interval_ms", interval_ms, *INTERVALS)
    options.file_mode = _mode(mode)
    if segment_bytes is not None:
        options.segment_size = _integer("segment_bytes", segment_bytes, *SEGMENT_SIZES)
    if max_disk_bytes is not None:
        options.disk_size_max = _integer("max_disk_bytes", max_disk_bytes, 1 << 20, COUNT_MAX)
    options.space_percent = _percent("space_factor", space_factor)
    if expected_keys is not None:
        options.expected_keys = _integer("expected_keys", expected_keys, 0, COUNT_MAX)

    opened = ffi.new("struct pykv_store **")
    status = lib.pykv_open(name, options, opened)
    if status < 0:
        raise failure(status)
    again: Options = {
        "durability": durability,
        "interval_ms": interval_ms,
        "io": io,
        "max_disk_bytes": max_disk_bytes,
        "segment_bytes": segment_bytes,
        "space_factor": space_factor,
    }
    shown = os.fsdecode(path)
    place = (str(Path(shown).absolute()), "r" if flag == "r" else "w", again)
    return Store(opened[0], shown, (_open_again, place))


def open_aside(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Store:
    """Open what is whole of a damaged store for reading, in memory: the directory is left alone."""
    options = ffi.new("struct pykv_options *")
    options.flag = lib.PYKV_FLAG_READ
    options.repair = lib.PYKV_REPAIR_ASIDE
    opened = ffi.new("struct pykv_store **")
    status = lib.pykv_open(os.fsencode(path), options, opened)
    if status < 0:
        raise failure(status)
    shown = os.fsdecode(path)
    return Store(opened[0], shown, (open_aside, (shown,)))


def _open_again(path: str, flag: Flag, options: Options) -> Store:
    """Open what another process had open: neither anew nor empty."""
    return open(path, flag, **options)


def _choice(name: str, value: str, choices: dict[str, int]) -> int:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {type(value).__name__}")
    if value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise InvalidError(f"{name} is one of {allowed}, not {value!r}")
    return choices[value]


def _mode(value: Any) -> int:
    mode = _integer("mode", value, 0, COUNT_MAX)
    if mode & ~0o777 or mode & 0o600 != 0o600:
        raise InvalidError(f"mode is from 0o600 to 0o777, and 0o600 is in it; not {mode:#o}")
    return mode


def _percent(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a float, not {type(value).__name__}")
    least, most = SPACE_FACTORS
    if not least <= value <= most:
        raise InvalidError(f"{name} is between {least} and {most}, not {value}")
    return round(value * 100)


def _integer(name: str, value: Any, least: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is an int, not {type(value).__name__}") from None
    if not least <= number <= most:
        raise InvalidError(f"{name} is between {least:,} and {most:,}, not {number:,}")
    return number
