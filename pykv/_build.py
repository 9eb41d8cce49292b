"""
_build.py -- compiles the engine and its binding into pykv._core.

One source for every signature: the declarations are cut out of csrc/pykv.h itself, between its cffi
marks, and the C compiler checks each of them against the header. setup.py runs this file from the
top of the source tree; nothing imports it at run time.
"""

import sysconfig
from pathlib import Path

from cffi import FFI

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

_, rest = Path("csrc/pykv.h").read_text(encoding="utf-8").split("/* cffi: begin */")
declarations, _ = rest.split("/* cffi: end */")

ffi = FFI()
ffi.cdef(declarations)
ffi.set_source(
    "pykv._core",
    '#include "pykv.h"\n#define PyInit__core pykv_cffi_module',  # _module.c calls it
    include_dirs=["csrc"],
    sources=["pykv/_module.c", *sorted(path.as_posix() for path in Path("csrc").glob("*.c"))],
    depends=sorted(path.as_posix() for path in Path("csrc").glob("*.h")),
    py_limited_api=not FREE_THREADED,  # one binary for CPython 3.11 and later
    extra_compile_args=["-O3", "-std=c11", "-fvisibility=hidden", "-pthread"],
    extra_link_args=["-pthread"],
)
