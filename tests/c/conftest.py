"""
Builds and runs the C tests: every tests/c/test_*.c is a program, every case in it a pytest item.

The engine and the helpers beside the tests (test.c, the simulated system) become one archive each,
so that a program takes from them what it refers to and no more: a module that does not compile
today fails test_build.py and the programs that need it, and no others.

What is built stays in build/tests-c, one folder for each set of flags, and is built again when the
command or the time stamp of any file that goes into it has changed.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "csrc"
TESTS = ROOT / "tests" / "c"

FLAGS = "-std=c11 -O1 -g -pthread -Wall -Wextra -Wconversion -Wshadow -Werror".split()
SANITIZE = {
    "address": "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer",
    "thread": "-fsanitize=thread -fno-omit-frame-pointer",
    "none": "",
}
# Sizes are 64 bits wide on disk and 32 in memory: that some are cut where both meet is known.
BITS = {"native": [], "32": "-m32 -Wno-conversion -Wno-psabi".split()}
# The simulated system records stores in a signal handler, between two instructions of the engine and
# never inside a function of the C library: that it may allocate there is no finding.
OPTIONS = {"UBSAN_OPTIONS": "print_stacktrace=1", "TSAN_OPTIONS": "report_signal_unsafe=0"}
CASE_SECONDS_MAX = 300


class BuildError(Exception):
    """A command failed; the message is what it printed."""


class Builder:
    """The programs of one compiler and one set of flags."""

    def __init__(
        self, sanitize: str, compiler: list[str] | None = None, bits: str = "native"
    ) -> None:
        self.compiler = compiler or shlex.split(os.environ.get("CC", "cc"))
        self.flags = [*FLAGS, *SANITIZE[sanitize].split(), *BITS[bits]]
        self.flags += [f"-I{ENGINE}", f"-I{TESTS}"]
        name = hashlib.sha256(repr([self.compiler, self.flags]).encode()).hexdigest()[:12]
        self.folder = ROOT / "build" / "tests-c" / f"{sanitize}-{name}"
        self.headers = sorted([*ENGINE.glob("*.h"), *TESTS.glob("*.h")])
        self.errors: dict[Path, str] = {}  # what the compiler says of sources that do not compile
        self.archives: list[Path] | None = None

    def make(self, product: Path, command: list[str], inputs: Iterable[Path]) -> Path:
        """
        Run *command*, whose "@" stands for its product, unless nothing has changed since.

        The product gets its name when it is whole, so that several runs can share the folder.
        """
        stamps = [(str(path), path.stat().st_mtime_ns) for path in inputs]
        key = hashlib.sha256(repr([command, stamps]).encode()).hexdigest()
        key_file = product.with_name(product.name + ".key")
        if product.exists() and key_file.exists() and key_file.read_text() == key:
            return product
        product.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=product.parent) as scratch:
            made = Path(scratch) / product.name
            arguments = [str(made) if word == "@" else word for word in command]
            done = subprocess.run(
                arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if done.returncode != 0:
                raise BuildError(f"{shlex.join(command)}\n{done.stdout}")
            made_key = Path(scratch) / "key"
            made_key.write_text(key)
            key_file.unlink(missing_ok=True)  # first: a key never vouches for another's product
            made.replace(product)
            made_key.replace(key_file)
        return product

    def compile(self, source: Path) -> Path:
        product = self.folder / source.parent.name / (source.stem + ".o")
        command = [*self.compiler, *self.flags, "-c", str(source), "-o", "@"]
        return self.make(product, command, [source, *self.headers])

    def try_compile(self, source: Path) -> Path | None:
        try:
            return self.compile(source)
        except BuildError as error:
            self.errors[source] = str(error)
            return None

    def build_archives(self) -> list[Path]:
        """Compile everything but the tests themselves, once in a run."""
        if self.archives is not None:
            return self.archives
        self.archives = []
        helpers = [path for path in TESTS.glob("*.c") if not path.name.startswith("test_")]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, sources in ("libtests.a", helpers), ("libpykv.a", ENGINE.glob("*.c")):
                objects = [path for path in pool.map(self.try_compile, sorted(sources)) if path]
                command = ["ar", "rcs", "@", *map(str, objects)]
                self.archives.append(self.make(self.folder / name, command, objects))
        return self.archives

    def program(self, source: Path) -> Path:
        archives = self.build_archives()
        try:
            test = self.compile(source)
            command = [*self.compiler, *self.flags, str(test), *map(str, archives), "-o", "@"]
            return self.make(self.folder / source.stem, command, [test, *archives])
        except BuildError as error:
            raise BuildError("\n".join([str(error), *self.errors.values()])) from None


BUILDER = pytest.StashKey[Builder]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BUILDER] = Builder(config.getoption("--sanitize"), bits=config.getoption("--bits"))


@pytest.fixture(scope="session")
def builder(pytestconfig: pytest.Config) -> Builder:
    """The builder of this run."""
    return pytestconfig.stash[BUILDER]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".c" and file_path.name.startswith("test_"):
        return Program.from_parent(parent, path=file_path)
    return None


class Program(pytest.File):
    """One test_*.c."""

    def collect(self) -> Iterator[pytest.Item]:
        builder = self.config.stash[BUILDER]
        if shutil.which(builder.compiler[0]) is None:
            pytest.skip(f"no C compiler: {builder.compiler[0]}", allow_module_level=True)
        try:
            program = builder.program(self.path)
        except BuildError as error:
            # A failing item rather than a failing collection, which would end the whole run.
            yield Broken.from_parent(self, name="build", message=str(error))
            return
        listing = subprocess.run([program, "--list"], capture_output=True, text=True)
        if listing.returncode != 0:
            message = f"--list failed:\n{listing.stdout}{listing.stderr}"
            yield Broken.from_parent(self, name="list", message=message)
            return
        for name in listing.stdout.split():
            yield Case.from_parent(self, name=name, program=program)


class CaseError(Exception):
    """A case failed; the message is what it printed."""


class CaseItem(pytest.Item):
    """What stands for a case in the report: its name, and its own words when it fails."""

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, CaseError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self.path.stem}: {self.name}"


class Broken(CaseItem):
    """A program that could not be built, or asked."""

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    def runtest(self) -> None:
        raise CaseError(self.message)


class Case(CaseItem):
    """One case of a program, run in a process and a scratch directory of its own."""

    def __init__(self, *, program: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.program = program

    def runtest(self) -> None:
        with tempfile.TemporaryDirectory(prefix="pykv-") as scratch:
            try:
                done = subprocess.run(
                    [self.program, self.name],
                    env={**OPTIONS, **os.environ, "TMPDIR": scratch},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    timeout=CASE_SECONDS_MAX,
                )
            except subprocess.TimeoutExpired as error:
                raise CaseError(f"still running after {error.timeout:.0f} seconds") from None
        if done.returncode != 0:
            raise CaseError(f"{done.stdout}\n{self.name}: exit status {done.returncode}")
        self.add_report_section("call", "stdout", done.stdout)
