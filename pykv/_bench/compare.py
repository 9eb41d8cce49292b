"""
compare.py -- `pykv bench --standard` and `--full`: pykv beside its peers, and what choices cost.

A run is a list of tasks (plan.py), each in a process of its own, in an empty directory. The
document that comes out holds all results as they came; tables.py and page.py only show it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from pykv._bench import pagecache
from pykv._bench.engines import engines
from pykv._bench.machine import machine
from pykv._bench.page import write_page
from pykv._bench.plan import Options, Task, plan
from pykv._bench.steps import Steps
from pykv._bench.summary import problems_of
from pykv._bench.tables import print_tables
from pykv._bench.worker import PartError, run_part

SCHEMA = 1  # of the document; it changes when what is there changes its meaning


def run(options: Options, directory: Path | None = None, out: Path | None = None) -> int:
    """
    Run it all, print the tables, write `results.json` and `report.html`.

    Args:
        options: What to run.
        directory: Where to make the stores; None: where temporary files go.
        out: Where to write both files; None: the current directory.
    Returns:
        The exit code: 0 if everything ran and every answer was right.
    """
    out = out or Path()
    out.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="pykv-bench-", dir=directory))
    try:
        document = measure(options, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    (out / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    write_page(document, out / "report.html")
    print_tables(document)
    print(f"{out / 'report.html'}; all figures: {out / 'results.json'}")
    return 1 if problems_of(document) else 0


def measure(options: Options, base: Path) -> dict[str, Any]:
    """Run all tasks in *base* and return the document."""
    begun = time.monotonic()
    missing = {name: why for name, kind in engines().items() if (why := kind.missing())}
    chosen = options.chosen(missing)
    if not pagecache.CAN_EVICT:
        missing["RAM against disk, less memory than data"] = "this system has no posix_fadvise"
    tasks, data = plan(options, base, chosen)
    results = []
    with Steps(len(tasks)) as steps:
        for task in tasks:
            steps.begin(task.label)
            results.append(_run(task, base))
    kinds = engines()
    return {
        "schema": SCHEMA,
        "machine": machine(base),
        "size": options.size,
        "seconds": time.monotonic() - begun,
        "data": data,
        "prices": {"ram": options.ram_price, "disk": options.disk_price},
        "engines": {
            name: {
                "version": kinds[name].version(),
                "settings": kinds[name].settings,
                "persistent": kinds[name].persistent,
                "ram_max": kinds[name].ram_max,
                "abilities": kinds[name].abilities._asdict(),
            }
            for name in chosen
        },
        "missing": missing,
        "results": results,
    }


def _run(task: Task, base: Path) -> dict[str, Any]:
    """Run one task; what it told, or why it could not be run."""
    directory = base / (task.keep or "task")
    directory.mkdir(exist_ok=True)
    told: dict[str, Any] = {"part": task.part, "about": task.about, "arguments": task.arguments}
    begun = time.monotonic()
    try:
        told["result"] = run_part(task.part, directory, **task.arguments)
    except PartError as error:
        told["error"] = str(error)
    finally:
        told["seconds"] = round(time.monotonic() - begun, 3)
        engine = task.arguments.get("engine")
        if engine is not None:
            for path in (directory, *directory.iterdir()):
                engines()[engine].kill(path)  # what it left running, if it failed
        if task.keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    return told
