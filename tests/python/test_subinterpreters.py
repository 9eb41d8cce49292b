"""
In a sub-interpreter pykv works, where the interpreter admits modules of cffi; else it says why not.

CPython 3.12 and later admit them in those that share the GIL, and refuse them in isolated ones.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ("_interpreters", "_xxsubinterpreters")  # of 3.13 and later; of those before
MODULE = next((name for name in NAMES if importlib.util.find_spec(name)), "")

# The main interpreter has the store open meanwhile; two sub-interpreters come one after the other.
SCRIPT = """
import sys, MODULE as interpreters, pykv
path, told, isolated = sys.argv[1:]
db = pykv.open(path)
db[b"main"] = b"1"
kinds = ["isolated", "legacy"] if sys.version_info >= (3, 13) else [True, False]
code = f'''
try:
    import pykv
except ImportError as error:
    told = str(error)
else:
    with pykv.open({path!r}) as db:
        assert db[b"main"] == b"1"
        count = db.transact(lambda t: t.incr(b"count"))
        with db.batch() as batch:
            batch[b"sub:%d" % count] = b"v"
        with db.snapshot() as snapshot:
            assert len(snapshot) == len(db) == 2 + count
        try:
            db["str"] = b""
        except pykv.NotBytesError:
            told = "works"
with open({told!r}, "a") as file:
    print(told, file=file)
'''
for _ in range(2):
    if sys.version_info >= (3, 13):
        sub = interpreters.create(kinds[isolated == "0"])
    else:
        sub = interpreters.create(isolated=isolated == "1")
    assert interpreters.run_string(sub, code) is None
    interpreters.destroy(sub)
print(sorted(db))
db.close()
"""


@pytest.mark.skipif(not MODULE, reason="this interpreter has no sub-interpreters")
@pytest.mark.parametrize("isolated", [False, True])
def test_a_sub_interpreter(path: Path, isolated: bool) -> None:
    """It works, or it is a sentence that says what to do; the main interpreter goes on."""
    told = path.with_name("told")
    script = SCRIPT.replace("MODULE", MODULE)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, path, told, str(int(isolated))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = told.read_text().splitlines()
    if isolated and sys.version_info >= (3, 12):
        assert len(lines) == 2
        assert all(line.startswith("pykv cannot be imported in an isolated") for line in lines)
        assert done.stdout.strip() == "[b'main']"
    else:
        assert lines == ["works", "works"]
        assert done.stdout.strip() == "[b'count', b'main', b'sub:1', b'sub:2']"
