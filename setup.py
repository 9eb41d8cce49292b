"""setup.py -- what pyproject.toml cannot say: the C engine, compiled through pykv/_build.py, and
the version, whose one source is pykv_version_string() in csrc/."""

import re
import sysconfig
from pathlib import Path

from setuptools import setup

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))  # has no limited API


def version() -> str:
    for source in Path("csrc").glob("*.c"):
        text = source.read_text(encoding="utf-8")
        found = re.search(r'pykv_version_string\(void\)\s*\{\s*return "([^"]+)";', text)
        if found:
            return found[1]
    raise SystemExit("no file of csrc/ defines pykv_version_string()")


setup(
    version=version(),
    cffi_modules=["pykv/_build.py:ffi"],
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
