"""
worker.py -- each measurement in a process of its own, which nothing before it has warmed or filled.

    python -m pykv._bench.worker PART DIRECTORY ARGUMENTS

PART is one of PARTS; ARGUMENTS, in JSON, are those of its function. The last line on stdout is what
it returns, in JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pykv

PARTS = {
    "operations": "operations.measure",
    "occupied": "operations.occupied",
    "reader": "operations.reader",
    "victim": "operations.victim",
    "ycsb": "ycsb.measure",
    "latency": "latency.measure",
    "tradeoff": "tradeoff.measure",
    "prepare": "pagecache.prepare",
    "pagecache": "pagecache.measure",
    "durability": "durability.measure",
    "space": "space.measure",
}
PATIENCE_SECONDS = 900  # how long a part may take before that is a failure
PACKAGE_PARENT = Path(pykv.__file__).parents[1]


class PartError(Exception):
    """A part could not be run; the message says why."""


def spawn(part: str, directory: Path, **arguments: Any) -> subprocess.Popen[bytes]:
    """Begin a part; its stdin and stdout are pipes."""
    command, environment = _command(part, directory, arguments)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)


@contextmanager
def patient(process: subprocess.Popen[bytes]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yield stdin and stdout of what `spawn` began; wait for its end, or kill it."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdin, process.stdout
        process.wait(PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def run_part(part: str, directory: Path, **arguments: Any) -> Any:
    """
    Run a part to its end.

    Returns:
        What its function returned.
    Raises:
        PartError: It failed, or took too long.
    """
    command, environment = _command(part, directory, arguments)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise PartError(f"no answer in {PATIENCE_SECONDS} seconds") from None
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise PartError(last[0] if last else f"ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _command(
    part: str, directory: Path, arguments: dict[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """Return the command line, and an environment in which it imports this very package."""
    module = [sys.executable, "-P", "-m", "pykv._bench.worker"]
    paths = filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return [*module, part, str(directory), json.dumps(arguments)], environment


def main(part: str, directory: str, arguments: str) -> None:
    """Run the part, and print what it returned."""
    module, function = PARTS[part].split(".")
    measure = getattr(importlib.import_module(f"pykv._bench.{module}"), function)
    result = measure(Path(directory), **json.loads(arguments))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
