"""Entry point of the console script and of ``python -m softmaxkit``."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line, or say in one line what it needs."""
    try:
        from softmaxkit.cli import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(
            f"softmaxkit: {missing.name} is not installed; the command line needs it; "
            f"pip install 'softmaxkit[cli]'"
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a code page of Windows lacks some characters
    app(prog_name="softmaxkit")


if __name__ == "__main__":
    main()
