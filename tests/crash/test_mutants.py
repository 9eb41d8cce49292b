"""
The checks of this folder bite: each planted defect is found by the check that is named for it.

A defect is either a lie of the simulated machine (crash.c --lie) or one edit of a copy of csrc/, so
the product carries no hooks. An edit that no longer finds its place fails its test: move it along.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Mutant:
    """One edit: in *file*, the one place that matches *pattern* becomes *replacement*."""

    name: str
    file: str
    pattern: str
    replacement: str
    check: tuple[str, ...]  # the program that finds it, and its arguments
    finds: str  # what it must say


MUTANTS = [
    Mutant(
        "no-checksum",
        "format.c",
        r"return get_u32\(bytes\) == crc32c\(seed, bytes \+ 4, size - 4\);",
        "(void)bytes, (void)seed;\n    return true;",
        ("damage", "--stride", "29"),
        "VIOLATION",
    ),
    Mutant(
        "half-a-batch",
        "walk.c",
        r"if \(\(status = walk_members\(walk, reader, &record, false\)\) != PYKV_OK \|\| !tell\)",
        "if (!tell)",
        ("crash", "--images", "5000"),
        "VIOLATION",
    ),
    Mutant(
        "failed-sync-believed",
        "log.c",
        r"int error = log->os->file_sync\(log->os, segment->fd\);",
        "(void)log->os->file_sync(log->os, segment->fd);\n    int error = 0;",
        ("faults", "--stride", "7"),
        "VIOLATION",
    ),
    Mutant(
        "no-directory-sync",
        "log.c",
        r"int error = log->os->dir_sync\(log->os, log->dir\);",
        "int error = 0;",
        ("crash", "--images", "5000"),
        "VIOLATION",
    ),
]


def find(program: Path, *arguments: str) -> str:
    """What the program prints about the first violations; it has to find some."""
    done = subprocess.run(
        [program, *arguments, "--violations", "2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=300,
    )
    print(done.stdout)
    assert done.returncode == 1, f"not found: {done.stdout[-500:]}"
    return done.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_defect_of_the_engine_is_found(mutant: Mutant, mutated: Any) -> None:
    """The named check finds the defect, and for the reason that is expected."""
    programs = mutated(mutant.file, mutant.pattern, mutant.replacement)
    output = find(programs.build(mutant.check[0]), *mutant.check[1:])
    assert re.search(mutant.finds, output), f"found, but not as expected: {output[-500:]}"


@pytest.mark.parametrize("lie", ["file-sync", "dir-sync"])
def test_a_lie_of_the_machine_is_found(plain: Any, lie: str) -> None:
    """A sync that does nothing is a loss of what was acknowledged as durable."""
    output = find(plain.build("crash"), "--images", "5000", "--lie", lie)
    assert re.search("but it must be|which it had at no step|open: ", output)
