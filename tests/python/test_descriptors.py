"""Files beyond the limit of descriptors: a mapped store needs few, whatever its size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pykv

LIMIT = 64  # descriptors of the process

CODE = f"""
import pathlib, resource, sys
import pykv

path = pathlib.Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))

def check(db):
    assert len(db) == 3000
    assert all(db[b"%d" % n] == b"%04d" % n * 2_500 for n in range(3000))
    assert sum(1 for _ in db.items()) == 3000
    assert db.verify().ok

with pykv.open(path, segment_bytes=64 << 10) as db:
    for n in range(3000):
        db[b"%d" % n] = b"%04d" % n * 2_500
    assert db.stats().segments > 6 * {LIMIT}
    check(db)
for flag, lost in ("c", ()), ("r", ()), ("w", ("keydir",)), ("w", ("keydir", "manifest")):
    for name in lost:
        (path / name).unlink()
    with pykv.open(path, flag) as db:
        check(db)
        if flag != "r":
            db[b"0"] = b"0000" * 2_500
with pykv.open(path, "n", segment_bytes=64 << 10) as db:
    assert len(db) == 0
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    where = str(Path(pykv.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": where},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_a_store_of_more_files_than_descriptors(path: Path) -> None:
    """With a limit of 64 a store of 500 segments is written, read, verified, recovered and emptied."""
    done = run(CODE, path)
    assert done.returncode == 0, done.stderr
