"""`python -m pykv`: the command line, where the extra `cli` is installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; tell what is missing if its libraries are not there."""
    try:
        from pykv._cli import cli
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.exit(f"pykv: {error.name} is missing: pip install 'pykv-engine[cli]'")
    cli(prog_name="pykv")


if __name__ == "__main__":
    main()
