"""redis.py -- a Redis server on loopback, with a log that a killed server reads again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pykv._bench.engines import Abilities, Engine, Pair, Shape
from pykv._bench.machine import Memory, memory_of_process

PATIENCE_SECONDS = 60  # for the server to read its log
SCAN_COUNT = 1000


class Redis(Engine):
    """A server of its own for each store, which its first user starts and ends."""

    name = "redis"
    needs = ("redis",)
    settings = (
        "redis-server on 127.0.0.1, appendonly yes, appendfsync everysec (durable puts: always),"
        " save ''; 1,000s by MSET and MGET"
    )
    abilities = Abilities("any number", "yes", "yes", "in sorted sets", "memory, yes")
    served = True

    def __init__(
        self, path: Path, shape: Shape, *, durable: bool = False, read_only: bool = False
    ) -> None:
        import redis

        self._path = path
        self._server: subprocess.Popen[bytes] | None = None
        if not read_only:
            self._start(path, durable)
        self._pid, port = map(int, (path / "server").read_text().split())
        self._db: Any = redis.Redis(host="127.0.0.1", port=port)
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._db.ping()
                break
            except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.001)
        self.put, self.get, self.delete = self._db.set, self._db.get, self._db.delete

    def _start(self, path: Path, durable: bool) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(path),
            "appendonly": "yes",
            "appendfsync": "always" if durable else "everysec",
            "save": "",
            "logfile": str(path / "log"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._server = subprocess.Popen(["redis-server", *words], stdin=subprocess.DEVNULL)
        (path / "server").write_text(f"{self._server.pid} {port}")

    def put_many(self, pairs: Sequence[Pair]) -> None:
        self._db.mset(dict(pairs))

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = self._db.mget(keys)
        return found

    def items(self) -> Iterator[Pair]:
        cursor = None
        while cursor != 0:
            cursor, keys = self._db.scan(cursor or 0, count=SCAN_COUNT)
            if keys:
                yield from zip(keys, self._db.mget(keys), strict=True)

    def memory(self) -> Memory | None:
        client, server = memory_of_process(), memory_of_process(self._pid)
        return client + server if client and server else None

    def close(self) -> None:
        self._db.close()
        if self._server is not None:
            self._server.terminate()
            self._server.wait()

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("redis-server") is None:
            return "redis-server is not installed"
        return super().missing()

    @classmethod
    def version(cls) -> str:
        told = subprocess.run(["redis-server", "--version"], capture_output=True, text=True)
        return next((word[2:] for word in told.stdout.split() if word.startswith("v=")), "unknown")

    @classmethod
    def kill(cls, path: Path) -> None:
        try:
            pid, port = (path / "server").read_text().split()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return  # never begun, or gone
        if os.fsencode(path) in command or f"127.0.0.1:{port}".encode() in command:
            os.kill(int(pid), signal.SIGKILL)
            while _lives(pid):
                time.sleep(0.001)


def _lives(pid: str) -> bool:
    """Whether a process runs; one that is dead may wait for its parent for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
