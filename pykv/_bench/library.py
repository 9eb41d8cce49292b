"""
library.py -- the benchmark's input, which every machine has: the standard library of the
Python that runs it. Each source file is stored under its path, and each identifier, as id:NAME,
with the places it occurs at.

A batch holds some files and the identifiers first met in them. Identifiers are found by one regular
expression that knows comments, strings and numbers: `tokenize` would take as long as the rest of
the benchmark. (Names inside f-strings count as text.)
"""

from __future__ import annotations

import keyword
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BATCH_SOURCE_SIZE = 32 << 10  # bytes of source after which a batch is full
NOT_THE_LIBRARY = frozenset({"site-packages", "dist-packages", "__pycache__"})
ITS_TESTS = frozenset({"test", "tests", "idle_test"})
KEYWORDS = frozenset(word.encode() for word in keyword.kwlist)

TOKEN = re.compile(
    rb"""
      (?i:[rbuf]|[rbf][rbf])?                   # a string, with its prefix
      (?: \"{3} (?:[^\\]|\\.)*? \"{3} | '{3} (?:[^\\]|\\.)*? '{3}
        | \"    (?:[^\\\"\n]|\\.)* \"  | '    (?:[^\\'\n]|\\.)* ' )
    | \#[^\n]*                                  # a comment
    | [0-9][0-9A-Za-z_.]*                       # a number
    | ([A-Za-z_\x80-\xff][0-9A-Za-z_\x80-\xff]*)  # a name: the only group
    """,
    re.VERBOSE | re.DOTALL,
)

Batch = dict[bytes, bytes]


@dataclass(frozen=True)
class Library:
    """
    What is to be stored.

    Attributes:
        batches: Pairs in the order of writing; no key is in two batches.
        files, identifiers, places: How many there are of each.
        source_bytes: Bytes of the files.
    """

    batches: list[Batch]
    files: int
    identifiers: int
    places: int
    source_bytes: int

    def pairs(self) -> Batch:
        """Return all of it."""
        return {key: value for batch in self.batches for key, value in batch.items()}


def read_library(with_tests: bool) -> Library:
    """Read the standard library; *with_tests*: its own tests too, where they are installed."""
    root = Path(sysconfig.get_path("stdlib"))
    sources = dict(_sources(root, NOT_THE_LIBRARY if with_tests else NOT_THE_LIBRARY | ITS_TESTS))
    first_met: dict[bytes, bytes] = {}  # identifier -> path of the file
    occurrences: dict[bytes, list[bytes]] = {}  # identifier -> b"path:line,line", a file each
    places = 0
    for path, source in sources.items():
        for name, lines in _identifiers(source).items():
            first_met.setdefault(name, path)
            text = path + b":" + b",".join([b"%d" % line for line in lines])
            occurrences.setdefault(name, []).append(text)
            places += len(lines)

    names_of: dict[bytes, list[bytes]] = {path: [] for path in sources}
    for name, path in first_met.items():
        names_of[path].append(name)
    batches: list[Batch] = []
    room = 0
    for path, source in sources.items():
        if room <= 0:
            batches.append({})
            room = BATCH_SOURCE_SIZE
        batches[-1][path] = source
        for name in names_of[path]:
            batches[-1][b"id:" + name] = b"\n".join(occurrences[name])
        room -= len(source)
    return Library(batches, len(sources), len(occurrences), places, sum(map(len, sources.values())))


def _sources(root: Path, left_out: frozenset[str]) -> Iterator[tuple[bytes, bytes]]:
    """Yield path and content of each source file under *root*, in the order of their paths."""
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if left_out.isdisjoint(relative.parts):
            try:
                source = path.read_bytes()
            except OSError:  # not ours to read, or a link that leads nowhere
                continue
            yield relative.as_posix().encode(), source


def _identifiers(source: bytes) -> dict[bytes, list[int]]:
    """Return each identifier of *source* with the lines it occurs on, ascending, each once."""
    found: dict[bytes, list[int]] = {}
    line, counted = 1, 0
    for token in TOKEN.finditer(source):
        name = token[1]
        if name is None or name in KEYWORDS:
            continue
        start = token.start()
        line += source.count(b"\n", counted, start)
        counted = start
        lines = found.setdefault(name, [])
        if not lines or lines[-1] != line:
            lines.append(line)
    return found
