"""What the commands share: how they report an error, and how they save a picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

INTERRUPTED = 130  # the exit code after Ctrl-C, as of a shell's own


class CommandError(Exception):
    """One line that says what went wrong, and the command's exit code: 2 for a wrong option."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def check_writable(option: str, path: Path, ending: str) -> None:
    """Refuse a file with another ending, or one that cannot be written; leave no file behind."""
    if path.suffix.lower() != ending:
        raise CommandError(f"{option} is {str(path)!r}; expected a name that ends in {ending}.")
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise cannot_write(option, path, error) from None
    if not existed:
        path.unlink()


def cannot_write(option: str, path: Path, error: OSError, exit_code: int = 2) -> CommandError:
    """Return what is said of a file that cannot be written."""
    return CommandError(
        f"{option} is {str(path)!r}, which cannot be written: {error.strerror}.", exit_code
    )


def save_picture(option: str, path: Path, figure: Any, dpi: int) -> None:
    """Write a figure of matplotlib as PNG: drawn first, so that Ctrl-C leaves no half of one."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    try:
        path.write_bytes(drawn.getvalue())
    except OSError as error:
        raise cannot_write(option, path, error, exit_code=1) from None
