"""
The checks of this folder bite: each planted defect is found by the check that is named for it.

A defect is either a lie of the simulated machine (crash.c --lie) or one edit of a source of csrc/, so
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
        r"return get_u32\(bytes\) == crc32c\(seed, bytes \+ 4, record_head_size\(record\) - 4\);",
        "(void)bytes, (void)seed;\n    return true;",
        ("damage", "--stride", "29"),
        "VIOLATION",
    ),
    Mutant(
        "chunks-not-verified",
        "format.c",
        r"return get_u32\(sum\) == crc32c\(0, bytes, record_chunk_size\(record, index\)\);",
        "(void)sum, (void)bytes;\n    return true;",
        ("crash", "--flavour", "6", "--images", "5000"),
        "VIOLATION",
    ),
    Mutant(
        "half-a-batch",
        "walk.c",
        r"status = walk_members\(walk, reader, &record, false\);",
        "status = PYKV_OK;",
        ("crash", "--images", "5000"),
        "VIOLATION",
    ),
    Mutant(
        "failed-sync-believed",
        "log.c",
        r"        error = log->os->file_sync\(log->os, fd\);",
        "        (void)log->os->file_sync(log->os, fd);",
        ("faults", "--stride", "7"),
        "VIOLATION",
    ),
    Mutant(
        "no-directory-sync",
        "log.c",
        r"int error = log->os->dir_sync\(log->os, log->dir\);",
        "int error = 0;",
        ("crash", "--images", "5000"),
        "is missing|but it must be",
    ),
    Mutant(
        "sealed-segments-unsynced",
        "log.c",
        r"for \(uint64_t id = from; id <= to; id = id < to",
        "for (uint64_t id = from < to ? to : from; id <= to; id = id < to",
        ("crash", "--flavour", "2", "--images", "20000"),
        "cut .*does not verify",
    ),
    Mutant(
        "manifest-renamed-before-its-sync",
        "manifest.c",
        r"        error = os->file_sync\(os, fd\);",
        "        error = 0;",
        ("crash", "--images", "5000"),
        "cut .*it is not a manifest",
    ),
    Mutant(
        "stored-in-silence",
        "write.c",
        r"store->os->stored\([^;]*;",
        ";",
        ("crash", "--scripts", "1"),
        "VIOLATION",
    ),
    Mutant(
        "published-before-it-is-applied",
        "write.c",
        r"(?=    uint64_t id = position_segment\(end\), first = offset)",
        "    counters.position = end;\n"
        "    counters.sequence = sequence;\n"
        "    shared_counters_publish(shared, &counters);\n",
        ("crash", "--flavour", "9", "--scripts", "10"),  # killed at each single store
        "kill .*(part of a batch|count is)",
    ),
    Mutant(
        "death-with-the-lock-ignored",
        "write.c",
        r"if \(__builtin_expect\(!died && !needs_repair\(store->shared\), 1\)\)",
        "(void)needs_repair;\n    if (!died)",
        ("crash", "--flavour", "9", "--scripts", "10"),
        "kill .*(verify|the state|count|contains)",
    ),
    Mutant(
        "read-error-taken-for-the-end-of-the-log",
        "segment.c",
        r"\n    return error_os\(error, name, offset, \"read\"\);",
        "\n    return PYKV_CORRUPT;",
        ("faults", "--scripts", "3"),
        "file_read",
    ),
    Mutant(
        "descriptor-kept-by-a-failed-open",
        "store.c",
        r"        store_release\(store\);\n(?=        pthread_mutex_destroy)",
        "",
        ("faults", "--scripts", "1"),
        "a failed open leaves",
    ),
    Mutant(
        "records-do-not-know-their-place",
        "format.c",
        r"return segment_seed \^ \(uint32_t\)\(offset / RECORD_ALIGNMENT\) \* 0x9E3779B1u;",
        "return segment_seed + (uint32_t)(offset * 0);",
        ("damage", "--stride", "997"),
        "misdirect .*SILENT LOSS",
    ),
    Mutant(
        "backup-unsynced",
        "backup.c",
        r"int error = backup->os->file_sync\(backup->os, backup->to_fd\);",
        "int error = 0;",
        ("crash", "--flavour", "11", "--images", "5000"),
        "cut .*open /(backup|store)",
    ),
    Mutant(
        "repair-leaves-what-a-checkpoint-leads-to",
        "recover.c",
        r"recovery\.has_checkpoint && store->options\.repair\)",
        "false)",
        ("damage", "--flavour", "8", "--stage", "closed", "--file", "segment-", "--stride", "199"),
        "after a repair, verify",
    ),
    Mutant(
        "touch-shortens-a-life",
        "rewrite.c",
        r" && !\(expiry->later && earlier\)",
        " && (earlier || !expiry->later || expiry->later)",
        ("crash", "--flavour", "8", "--images", "5000"),
        "expiry that it never had",
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
    program = mutated(mutant.check[0], mutant.file, mutant.pattern, mutant.replacement)
    output = find(program, *mutant.check[1:])
    assert re.search(mutant.finds, output), f"found, but not as expected: {output[-500:]}"


@pytest.mark.parametrize("lie", ["file-sync", "dir-sync"])
def test_a_lie_of_the_machine_is_found(plain: Any, lie: str) -> None:
    """A sync that does nothing is a loss of what was acknowledged as durable."""
    output = find(plain.build("crash"), "--images", "5000", "--lie", lie)
    assert re.search("but it must be|which it had at no step|open: ", output)
