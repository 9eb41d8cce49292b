"""
Builds the programs of this folder with the builder of tests/c, and runs them.

crash.c, faults.c and damage.c are programs; the other sources here are what they share. Each prints
one line of figures at its end, which the tests show (pytest -rP), and one line for each violation.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
PROGRAMS = ("crash", "faults", "damage")


def load_builder() -> Any:
    spec = importlib.util.spec_from_file_location("pykv_tests_c", HERE.parent / "c" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


c_tests = load_builder()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--images", type=int, default=25_000, help="disk images that tests/crash tries"
    )


class Programs:
    """The programs of one set of flags, each built when it is first run."""

    def __init__(self, sanitize: str) -> None:
        self.builder = c_tests.Builder(sanitize)
        self.builder.headers = sorted([*self.builder.headers, *HERE.glob("*.h")])
        if shutil.which(self.builder.compiler[0]) is None:
            pytest.skip(f"no C compiler: {self.builder.compiler[0]}")

    def build(self, name: str, changed: Path | None = None) -> Path:
        """The program; with *changed*, a source of the engine, that in the place of its namesake."""
        builder = self.builder
        sources = [path for path in HERE.glob("*.c") if path.stem not in PROGRAMS]
        objects = [builder.compile(path) for path in sorted([HERE / f"{name}.c", *sources])]
        folder = builder.folder / "crash"
        if changed is not None:
            folder = changed.parent
            command = [*builder.compiler, *builder.flags, "-c", str(changed), "-o", "@"]
            objects.append(builder.make(changed.with_suffix(".o"), command, [changed]))
        archives = builder.build_archives()  # what an object defines is not taken from them
        command = [*builder.compiler, *builder.flags, *map(str, [*objects, *archives]), "-o", "@"]
        return builder.make(folder / name, command, [*objects, *archives])

    def run(self, name: str, *arguments: object, seconds: float = 900) -> str:
        """What the program prints, which the test shows."""
        output = self.output(name, *arguments, seconds=seconds)
        print(output)
        return output

    def output(self, name: str, *arguments: object, seconds: float = 900) -> str:
        """What the program prints; its violations, if any, fail the test."""
        done = subprocess.run(
            [self.build(name), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
        )
        if done.returncode != 0:
            pytest.fail(f"{name}: exit status {done.returncode}\n{done.stdout}", pytrace=False)
        return done.stdout


@pytest.fixture(scope="session")
def plain() -> Programs:
    """Built without sanitizers, for numbers."""
    return Programs("none")


@pytest.fixture(scope="session")
def sanitized() -> Programs:
    """Built with AddressSanitizer and UndefinedBehaviorSanitizer, for depth."""
    return Programs("address")


@pytest.fixture
def mutated(plain: Programs, tmp_path: Path) -> Callable[[str, str, str, str], Path]:
    """A program linked with an engine in which one place of one file is another."""

    def make(name: str, file: str, pattern: str, replacement: str) -> Path:
        source = HERE.parents[1] / "csrc" / file
        text, count = re.subn(pattern, replacement, source.read_text())
        assert count == 1, f"the place is there {count} times in {file}"
        changed = tmp_path / file
        changed.write_text(text)
        return plain.build(name, changed)

    return make
