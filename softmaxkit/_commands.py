"""What the commands of the command line share: how they report an error."""

from __future__ import annotations

from pathlib import Path


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
        raise CommandError(
            f"{option} is {str(path)!r}, which cannot be written: {error.strerror}."
        ) from None
    if not existed:
        path.unlink()
