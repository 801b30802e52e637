"""The `bench` command: parse, call, print. Heavy imports stay inside each command, so that --help is instant."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from benchmark import __version__

EXAMPLES = """\b
Examples:
  bench demo                                    a synthetic dataset, end to end
  bench prepare mead --root /data/MEAD          crop, align, resample, write a manifest
  bench eval --method ours-p                    score a method on a protocol
  bench leaderboard --protocol demo             CSV and Markdown tables
"""


class BenchError(click.ClickException):
    """A one-line error for the user: what was found, what was expected, the likely cause."""


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bench")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("workspace"),
    show_default=True,
    envvar="BENCH_WORKSPACE",
    help="Folder that holds everything of a project.",
)
@click.pass_context
def bench(ctx: click.Context, workspace: Path) -> None:
    """The benchmark of emotion-controllable talking faces: prepare, generate, eval, leaderboard."""
    ctx.obj = workspace


def main() -> None:
    """Entry point of the console script; an error that the user can mend is one line, not a traceback."""
    try:
        bench(standalone_mode=True)
    except KeyboardInterrupt:  # pragma: no cover - click handles most of them
        sys.exit(130)


if __name__ == "__main__":
    main()
