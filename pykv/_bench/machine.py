"""machine.py -- what figures depend on, and what the machine has room for."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import NamedTuple, Self

import pykv


def machine(directory: Path) -> dict[str, object]:
    """Return what the figures depend on."""
    return {
        "pykv": pykv.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_bytes": memory_available(),
        "file_system": _file_system(directory),
        "directory": str(directory.parent),
    }


def _file_system(directory: Path) -> str:
    """Return the kind of file system that *directory* is on, where Linux tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    path = directory.resolve()
    kinds = {
        Path(fields[1]): fields[2] for fields in map(str.split, mounts.splitlines()) if fields[2:]
    }
    return next((kinds[each] for each in (path, *path.parents) if each in kinds), "unknown")


def _processor() -> str:
    """Return the processor's name, where Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory_available() -> int:
    """Return bytes of RAM that programs can still have, or all there are if that is not told."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    figures = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    return figures["MemAvailable"] << 10


def disk_free(directory: Path) -> int:
    """Return bytes that *directory* has room for."""
    return shutil.disk_usage(directory).free


def disk_used(directory: Path) -> int:
    """Return bytes of disk that the files in *directory* occupy, holes left out."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:  # removed meanwhile
            continue
    return total


class Memory(NamedTuple):
    """
    Bytes of RAM of a process.

    Attributes:
        private: Its own, which nothing but its end gives back.
        mapped: Its share of mapped files and of shared memory. Pages of files the system can take
            away when it needs room.
    """

    private: int
    mapped: int

    def __add__(self, other: object) -> Self:
        if not isinstance(other, Memory):
            return NotImplemented
        return type(self)(self.private + other.private, self.mapped + other.mapped)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.private - other.private, self.mapped - other.mapped)


def memory_of_process(pid: int | None = None) -> Memory | None:
    """Return what a process occupies now (None: this one), or None where that is not told."""
    try:
        text = Path(f"/proc/{pid or 'self'}/smaps_rollup").read_text(encoding="ascii")
        lines = (line.split() for line in text.splitlines()[1:])
        figures = {words[0]: int(words[1]) << 10 for words in lines}
        return Memory(figures["Pss_Anon:"], figures["Pss_File:"] + figures["Pss_Shmem:"])
    except (OSError, KeyError):
        return None
