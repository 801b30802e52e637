"""The error that a user can mend."""

from __future__ import annotations

import click


class BenchError(click.ClickException):
    """One line for the user: what was found, what was expected, the likely cause. The command exits with 1."""
