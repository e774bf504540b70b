"""Try everything and write what came of it into docs/review.md: ``… --write``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.server.attempts --write")
    command = [sys.executable, "-m", "pytest", "-q", "tests/server/test_attempts.py"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], env={**os.environ, "CLR_WRITE_DOCS": "1"}
    )
    sys.exit(done.returncode)
