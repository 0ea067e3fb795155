"""The orchestrator's command line, in a process that has executed a file first: FILE WORDS..."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    code, sys.argv = sys.argv[1], ["orchestrator", *sys.argv[2:]]
    runpy.run_path(code)
    from orchestrator.cli import main

    main()
