"""What the package promises about itself: examples that run, types, one source for each fact."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pykv
from pykv import _buffers, _open
from pykv._core import ffi, lib

HEADER = Path(__file__).parents[2] / "csrc" / "pykv.h"
PACKAGE = Path(pykv.__file__).parent
CALLS = re.compile(r"\b(pykv_\w+)\(")


def declarations() -> str:
    """The part of pykv.h that cffi reads."""
    return HEADER.read_text().split("/* cffi: begin */")[1].split("/* cffi: end */")[0]


def examples() -> Iterator[doctest.DocTest]:
    """Every docstring of the package that has examples."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [name for _, name, _ in pkgutil.iter_modules(pykv.__path__)]
    for name in ["", *(f".{name}" for name in names if name in MODULES)]:
        yield from finder.find(importlib.import_module(f"pykv{name}"))


MODULES = [
    "_batch",
    "_buffers",
    "_open",
    "_reader",
    "_rows",
    "_snapshot",
    "_stats",
    "_store",
    "_streams",
    "_transaction",
    "_views",
    "errors",
]


@pytest.mark.parametrize("example", [each for each in examples() if each.examples], ids=str)
def test_examples(
    example: doctest.DocTest, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples in the docstrings run, and print what they say."""
    monkeypatch.chdir(tmp_path)
    output: list[str] = []
    with pykv.open(path) as db:
        example.globs.update(pykv=pykv, db=db)
        doctest.DocTestRunner().run(example, out=output.append)
    assert output == []


def test_public_methods_have_docstrings() -> None:
    """Each public name is documented, and each method of a store names its source."""
    for name in pykv.__all__:
        assert inspect.getdoc(getattr(pykv, name)), name
    for cls in (pykv.Store, pykv.Batch, pykv.Snapshot, pykv.Transaction):
        for name, method in inspect.getmembers(cls, callable):
            if not name.startswith("_"):
                assert inspect.getdoc(method), f"{cls.__name__}.{name}"


def test_sources_exist() -> None:
    """Each call that a docstring names as its source is declared in pykv.h."""
    declared = set(CALLS.findall(declarations()))
    for module in ["pykv", *(f"pykv.{name}" for name in MODULES)]:
        text = inspect.getsource(importlib.import_module(module))
        for line in re.findall(r"Source: .*", text):
            for call in re.findall(r"`(pykv_\w+)`", line):
                assert call in declared, (module, line)


def test_stub_matches_the_header() -> None:
    """The stub for mypy has every call and every number that pykv.h declares."""
    stub = (PACKAGE / "_core.pyi").read_text()
    text = re.sub(r"/\*.*?\*/", "", declarations(), flags=re.DOTALL)
    assert set(CALLS.findall(text)) == set(re.findall(r"def (pykv_\w+)\(", stub))
    assert set(re.findall(r"\b(PYKV_\w+) = ", text)) == set(re.findall(r"\b(PYKV_\w+): int", stub))
    for call, arguments in re.findall(r"\b(pykv_\w+)\(([^)]*)\)", text):
        found = re.search(rf"def {call}\(\s*self,?([^)]*)\)", stub)
        assert found is not None
        names = [part.split(":")[0].strip() for part in found[1].split(",") if ":" in part]
        expected = [re.findall(r"\w+", each)[-1] for each in arguments.split(",")]
        assert names == [name for name in expected if name != "void"], call


def test_stats_match_the_header() -> None:
    """Stats has the fields of struct pykv_stats, in order, each documented."""
    fields = [field.name for field in dataclasses.fields(pykv.Stats)]
    assert fields == [name for name, _ in ffi.typeof("struct pykv_stats").fields]
    for name in fields:
        assert re.search(rf"^ +{name}: ", pykv.Stats.__doc__ or "", re.MULTILINE), name


def test_limits_match_the_header() -> None:
    """The sizes that Python checks are those of pykv.h."""
    text = HEADER.read_text()
    assert f"#define PYKV_KEY_SIZE_MAX {_buffers.KEY_SIZE_MAX}u" in text
    assert f"#define PYKV_VALUE_SIZE_MAX {_buffers.VALUE_SIZE_MAX}u" in text
    assert "64 KiB to 1 GiB; 0: a sixteenth of the log" in text
    assert _open.SEGMENT_SIZES == (64 * 1024, 1024**3)
    assert "1 to 3,600,000" in text
    assert _open.INTERVALS == (1, 3_600_000)


def test_version() -> None:
    """The version of the package is that of the engine, and of the installed distribution."""
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", pykv.__version__)
    assert pykv.__version__ == ffi.string(lib.pykv_version_string()).decode()
    try:
        installed = importlib.metadata.version("pykv-engine")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pykv-engine is not installed")
    assert pykv.__version__ == installed


def test_type_information_is_shipped() -> None:
    """Type checkers find the marker and the stub in the package."""
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()


def test_public_names() -> None:
    """All that the package exports is there, and nothing else is public."""
    public = {
        name
        for name, value in vars(pykv).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(pykv.__all__)


def test_nothing_decodes_into_code() -> None:
    """The package loads nothing that makes objects, or runs code, out of stored bytes."""
    code = (
        "import sys; before = set(sys.modules); import pykv; "
        "print(sorted({'pickle', 'shelve', 'json'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_source_tree_that_is_not_compiled(tmp_path: Path) -> None:
    """Python in a clone finds the sources before what is installed: the error tells the way out."""
    (tmp_path / "pykv").mkdir()
    for source in PACKAGE.glob("*.py"):
        (tmp_path / "pykv" / source.name).write_bytes(source.read_bytes())
    command = [sys.executable, "-S", "-c", "import pykv"]  # -S: without what is installed
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: pykv is not compiled in ")
    assert str(tmp_path / "pykv") in last
    assert "pip install -e ." in last
