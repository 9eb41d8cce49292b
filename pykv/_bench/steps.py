"""steps.py -- how far a benchmark is, drawn on stderr between measurements, never during one."""

from __future__ import annotations

import sys
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Steps:
    """A bar on stderr that is drawn only between steps: a thread would disturb the times."""

    def __init__(self, total: int) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        self._bar = Progress(
            *columns,
            TimeElapsedColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=total)
        self._begun = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def begin(self, what: str) -> None:
        """Say what comes next."""
        self._bar.update(self._task, description=what, completed=self._begun, refresh=True)
        self._begun += 1

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
