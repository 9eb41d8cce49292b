"""
Builds the fuzz targets of this folder with the builder of tests/c, and runs them.

Every fuzz_*.c is a target; the other sources are what they share. fuzz_open.c makes its store with
script.c and check.c of tests/crash. A target begins with the inputs in found/, each of which was a
finding once, and with its own seeds; what it learns beyond stays in build/fuzz, for the next run.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
CRASH = HERE.parent / "crash"
FLAGS = "-O2 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
# Without a record of each comparison: it halves the speed, and what it is for, constants and checksums
# that an input must meet, the seeds and targets provide.
COVERAGE = "-fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp"
ENVIRONMENT = {
    "ASAN_OPTIONS": "allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
INPUT_SECONDS_MAX = 20  # one input that takes longer is a hang


def load_builder() -> Any:
    spec = importlib.util.spec_from_file_location("pykv_tests_c", HERE.parent / "c" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seconds",
        type=float,
        default=None,
        help="how long tests/fuzz runs each target; without it, as long as the kept inputs take"
        " and a moment more, and not at all where there is no clang with libFuzzer",
    )


@dataclasses.dataclass
class Run:
    """How a run ended."""

    output: str
    inputs: int  # that were tried
    artifact: Path | None  # the input that was a finding


class Targets:
    """The targets, each built when it is first run."""

    def __init__(self, clang: str) -> None:
        module = load_builder()
        module.SANITIZE["fuzz"] = f"{FLAGS} {COVERAGE} -I{HERE} -I{CRASH}"
        self.failure = module.BuildError
        self.builder = module.Builder("fuzz", [clang])
        self.builder.headers = sorted(
            [*self.builder.headers, *HERE.glob("*.h"), *CRASH.glob("*.h")]
        )

    def build(self, name: str) -> Path:
        try:
            return self.make(name)
        except self.failure as error:
            pytest.fail(str(error), pytrace=False)

    def make(self, name: str) -> Path:
        builder = self.builder
        shared = [path for path in HERE.glob("*.c") if not path.name.startswith("fuzz_")]
        sources = [HERE / f"{name}.c", *shared, CRASH / "script.c", CRASH / "check.c"]
        objects = [builder.compile(path) for path in sorted(sources)]
        archives = builder.build_archives()
        assert not builder.errors, "\n".join(builder.errors.values())
        command = [*builder.compiler, *builder.flags, "-fsanitize=fuzzer"]
        command += [*map(str, [*objects, *archives]), "-o", "@"]
        return Path(builder.make(builder.folder / "fuzz" / name, command, [*objects, *archives]))

    def run(self, name: str, seconds: float, *arguments: str) -> Run:
        """Try the kept inputs, then new ones for so many seconds."""
        program = self.build(name)
        folder = HERE.parents[1] / "build" / "fuzz" / name
        corpus, artifacts, seeds = folder / "corpus", folder / "artifacts", folder / "seeds"
        for path in corpus, artifacts, seeds:
            path.mkdir(parents=True, exist_ok=True)
        subprocess.run([program, "--seeds", seeds], check=True)
        found = HERE / "found" / name
        kept = [str(path) for path in (found, seeds) if path.is_dir()]
        before = set(artifacts.iterdir())
        command = [str(program), f"-max_total_time={max(1, round(seconds))}", "-max_len=4096"]
        command += [f"-timeout={INPUT_SECONDS_MAX}", "-rss_limit_mb=4096", "-print_final_stats=1"]
        command += ["-seed=1"]  # what passes once passes again; give another in *arguments
        command += [f"-artifact_prefix={artifacts}/", *arguments, str(corpus), *kept]
        done = subprocess.run(
            command,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds * 3 + 300,
        )
        inputs = re.search(r"number_of_executed_units: +(\d+)", done.stdout)
        new = sorted(set(artifacts.iterdir()) - before)
        if done.returncode != 0 and not new:
            pytest.fail(
                f"{name}: exit status {done.returncode}\n{done.stdout[-8000:]}", pytrace=False
            )
        return Run(
            done.stdout, int(inputs[1]) if inputs else 0, new[0] if done.returncode else None
        )


@pytest.fixture(scope="session")
def targets(pytestconfig: pytest.Config) -> Targets:
    """The fuzz targets; a run that was asked for by --seconds never skips them."""
    for clang in "clang-19", "clang":
        if shutil.which(clang) is None:
            continue
        probe = "extern int LLVMFuzzerTestOneInput(const char *b, unsigned long n) { return 0; }"
        command = [clang, "-fsanitize=fuzzer,address", "-xc", "-", "-o", "/dev/null"]
        if subprocess.run(command, input=probe, text=True, capture_output=True).returncode == 0:
            return Targets(clang)
    message = "there is no clang with libFuzzer (Debian: clang-19 libclang-rt-19-dev)"
    if pytestconfig.getoption("--seconds", None) is not None:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
