"""`python -m pip_core ...` without what `cheaper` leaves out; or, after `-c`, code and its arguments."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["-c"]:
        code = sys.argv.pop(2)
        del sys.argv[1]
        exec(compile(code, "code of a test", "exec"), {"__name__": "__main__"})
    else:
        from . import cheaper  # noqa: F401 - it takes effect when it is imported

        runpy.run_module("pip_core", run_name="__main__", alter_sys=True)
