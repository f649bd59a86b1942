"""Entry point of the console script and of ``python -m softmaxkit``."""

from __future__ import annotations

import sys
from io import TextIOWrapper


def main() -> None:
    """Run the command line, or say in one line what it needs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # "÷" becomes "?" in ASCII, as what a Windows code page lacks does, and is no exception.
            stream.reconfigure(errors="replace")
    try:
        from softmaxkit.cli import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(
            f"softmaxkit: {missing.name} is not installed; the command line needs it; "
            f"pip install 'softmaxkit[cli]'"
        )
    except KeyboardInterrupt:
        print("softmaxkit: interrupted.", file=sys.stderr)
        sys.exit(130)
    app(prog_name="softmaxkit")


if __name__ == "__main__":
    main()
