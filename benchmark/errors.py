"""The error that a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import click


class BenchError(click.ClickException):
    """One line for the user: what was found, what was expected, the likely cause. The command exits with 1."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """For a block that only writes below `folder`: its OSError (a full or read-only disk) becomes one line."""
    try:
        yield
    except OSError as error:
        from pipelines.datasets import printable  # here: `bench --help` must not load the media libraries

        raise BenchError(
            f"{printable(folder)}: cannot be written ({error.strerror or error}); make room there, or choose another "
            "--workspace"
        ) from error


def writable(folder: Path) -> None:
    """Make the folder and try to write there, before hours of work. Raises BenchError where that fails."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
