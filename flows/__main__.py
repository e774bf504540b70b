"""What ``clr`` starts with: little, so that a Ctrl-C meets none of the imports unguarded."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: always.
    """
    try:
        from flows.cli import main as run

        run()
    except KeyboardInterrupt:  # while the commands were imported: none has begun
        sys.exit(130)


if __name__ == "__main__":
    main()
