"""
instructions.py -- instructions an operation takes, in C alone (core.c) and from Python, by callgrind.

    python bench/c/instructions.py [--keep | --check | --where get]

Unlike times they are the same on a busy machine, and within 2 % in each run (each store has its own hash
key). Prints them beside those kept in instructions.txt, and what changed by more than that; --keep writes
that table anew, and into docs/performance.md; --check fails where an operation in C takes over 5 % more,
unless another compiler or callgrind counted; --where tells which functions one of them spends them in. Of
Python the difference to a loop that does nothing is counted, in the thread that calls: so the binding, and
the interpreter's share of the call. Needs valgrind, and pykv installed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pykv

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KEPT = HERE / "instructions.txt"
PAGE = ROOT / "docs" / "performance.md"
COUNT = 20_000
VALUE = bytes(range(100))
FLAGS = ["-O3", "-g", "-std=c11", "-pthread"]  # those of the package, and names of functions

# Function of core.c: what it does, and the same in Python.
OPERATIONS = {
    "put": ("put, new keys", "for key in keys: put(key + b'+', value)"),
    "overwrite": ("put, overwrite", "for key in keys: put(key, value)"),
    "get": ("get, present", "for key in keys: get(key)"),
    "get_absent": ("get, absent", "for key in absent: get(key)"),
    "get_many": ("get_many of 64", "for some in groups: db.get_many(some)"),
    "put_many": ("put_many of 1000, overwrite", "for some in batches: db.put_many(some)"),
    "scan": ("scan, keys and values", "for key, found in db.items(): pass"),
}
SCRIPT = """
import sys, pykv
db = pykv.open(sys.argv[1])
put, get, value = db.__setitem__, db.get, bytes(range(100))
keys = [b"%%016d" %% (n * 7919 %% %(count)d) for n in range(%(count)d)]
absent = [key + b"?" for key in keys]
groups = [keys[at : at + 64] for at in range(0, len(keys), 64)]
batches = [dict.fromkeys(keys[at : at + 1000], value) for at in range(0, len(keys), 1000)]
def run(db, put, get, value, keys, absent, groups, batches):
    for key in keys: get(key)
    %(loop)s
run(db, put, get, value, keys, absent, groups, batches)
"""


def callgrind(command: list[str], out: Path, *options: str) -> None:
    run = subprocess.run(
        ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}", *options, *command],
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{run.stdout}{run.stderr}")


def annotate(out: Path, *options: str) -> str:
    command = ["callgrind_annotate", "--auto=no", "--show=Ir", *options, os.fspath(out)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def build(work: Path) -> list[str]:
    """The command that runs core.c, one round."""
    sources = [HERE / "core.c", HERE / "floor.c", *sorted((ROOT / "csrc").glob("*.c"))]
    program = work / "core"
    compiler = os.environ.get("CC", "cc")
    includes = [f"-I{ROOT / 'csrc'}", f"-I{HERE}"]
    subprocess.run([compiler, *FLAGS, *includes, *sources, "-o", program], check=True)
    return [os.fspath(program), os.fspath(work), str(COUNT), "1"]


def count_c(work: Path) -> dict[str, float]:
    """Instructions of each operation in C, those of all that it calls included."""
    callgrind(build(work), work / "c.out")
    listing = annotate(work / "c.out", "--inclusive=yes", "--threshold=100")
    found = {}
    for ir, name in re.findall(r"^ *([\d,]+) .*core\.c:bench_(\w+) ", listing, re.M):
        found.setdefault(name, int(ir.replace(",", "")) / COUNT)
    return {name: found[name] for name in OPERATIONS}


def run_python(work: Path, loop: str) -> int:
    """Instructions of the main thread of a Python that has a store of its own, and runs *loop*."""
    path, out = work / "python.kv", work / "python.out"
    with pykv.open(path, "n") as db:
        db.put_many((b"%016d" % number, VALUE) for number in range(COUNT))
    script = SCRIPT % {"count": COUNT, "loop": loop}
    callgrind([sys.executable, "-c", script, os.fspath(path)], out, "--separate-threads=yes")
    main = out.with_name(out.name + "-01").read_text()
    return int(re.findall(r"^(?:totals|summary): (\d+)", main, re.M)[-1])


def count_python(work: Path) -> dict[str, float]:
    nothing = run_python(work, "for key in keys: pass")
    return {
        name: (run_python(work, loop) - nothing) / COUNT for name, (_, loop) in OPERATIONS.items()
    }


def counted_by() -> str:
    """What the counts depend on besides the source."""
    compiler, valgrind = (
        subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
        .stdout.splitlines()[0]
        .strip()
        for command in (os.environ.get("CC", "cc"), "valgrind")
    )
    python = f"Python {platform.python_version()}"
    return f"{compiler}; {valgrind}; {platform.machine()}; {python}"


def read_kept() -> tuple[str, dict[str, tuple[int, int]]]:
    """By what they were counted, and the counts: of an operation in C, and from Python."""
    if not KEPT.exists():
        return "", {}
    first, _, *rows = KEPT.read_text().splitlines()
    cells = [re.split(r" {2,}", row) for row in rows]
    return first, {name: (int(in_c), int(python)) for name, in_c, python in cells}


def tell(name: str, content: str) -> None:
    """Put *content* between the marks of *name* in docs/performance.md."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, rest = PAGE.read_text().split(begin)
    PAGE.write_text(before + begin + content + end + rest.split(end, 1)[1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="write instructions.txt anew")
    parser.add_argument(
        "--check", action="store_true", help="C alone; fail if it takes over 5 %% more"
    )
    parser.add_argument("--where", choices=OPERATIONS, help="the functions that take most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        if options.where:
            toggle = f"--toggle-collect=bench_{options.where}"
            callgrind(build(work), work / "c.out", "--collect-atstart=no", toggle)
            print(annotate(work / "c.out"))
            return 0
        in_c = count_c(work)
        python = {} if options.check else count_python(work)
    by, kept = read_kept()
    grown = []
    table = [counted_by(), f"{'instructions an operation':<28}  {'C':>6}  {'Python':>7}"]
    for name, (what, _) in OPERATIONS.items():
        now = [round(in_c[name])] + ([round(python[name])] if python else [])
        table.append(f"{what:<28}  {now[0]:>6}" + "".join(f"  {count:>7}" for count in now[1:]))
        changes = []
        for where, new, old in zip(("in C", "Python"), now, kept.get(what, ()), strict=False):
            if abs(new - old) > old * 0.02:
                changes.append(f"{where} {new / old - 1:+.1%}")
            if where == "in C" and new > old * 1.05:
                grown.append(what)
        print(table[-1] + (f"    {', '.join(changes)} since instructions.txt" if changes else ""))
    if options.keep:
        KEPT.write_text("\n".join(table) + "\n")
        tell("instructions", f"```\n{KEPT.read_text()}```\n")
    elif by.split("; Python")[0] != table[0].split("; Python")[0]:
        print(f"instructions.txt is by {by or 'nobody'}, this by {table[0]}: not judged")
        return 0
    return 1 if options.check and grown else 0


if __name__ == "__main__":
    sys.exit(main())
