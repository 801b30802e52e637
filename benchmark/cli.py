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


@bench.group()
def weights() -> None:
    """Pretrained networks: what there is, fetch, verify, add a file of your own."""


@weights.command("list")
@click.argument("names", nargs=-1)
def weights_list(names: tuple[str, ...]) -> None:
    """List the networks and what this machine has of them; with NAMES, their sources, licence and terms.

    \b
    Examples:
      bench weights list
      bench weights list arcface-w600k-mbf
    """
    from benchmark import weights as registry

    if names:
        for name in names:
            click.echo(registry.describe(name))
        return
    click.echo(f"{'name':26}{'MB':>7}  {'here':14}{'licence'}")
    for name, network in registry.registry().items():
        found = registry.status(name)
        here = found.origin or "-" if found.state != "damaged" else "damaged"
        size = f"{network.bytes / 1e6:.1f}" if network.bytes else ""
        click.echo(f"{name:26}{size:>7}  {here:14}{network.licence[:50]}")


@weights.command("fetch")
@click.argument("names", nargs=-1, required=True)
@click.option("--accept", is_flag=True, help="Accept the licences that are shown.")
def weights_fetch(names: tuple[str, ...], accept: bool) -> None:
    """Fetch networks into the per-user cache and verify their digests; interrupted, it goes on where it stopped.

    \b
    Examples:
      bench weights fetch fid-inception arcface-w600k-mbf
      bench weights fetch yunet --accept
    """
    from benchmark import weights as registry

    for name, file in zip(names, registry.fetch(names, accept=accept), strict=True):
        click.echo(f"{name:26}{file}")


@weights.command("verify")
@click.argument("names", nargs=-1)
def weights_verify(names: tuple[str, ...]) -> None:
    """Read every file again and compare its digest; exits with 1 if one is damaged.

    \b
    Examples:
      bench weights verify
      bench weights verify yunet
    """
    from benchmark import weights as registry

    checked = [registry.status(name, rehash=True) for name in names or registry.registry()]
    for found in checked:
        if names or found.state != "missing":
            click.echo(f"{found.entry.name:26}{found.state:9}{found.file or found.entry.command}")
    if bad := [found.entry.name for found in checked if found.state == "damaged"]:
        raise BenchError(f"damaged: {', '.join(bad)}; `bench weights fetch` replaces what is in the cache")


@weights.command("add")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def weights_add(name: str, file: Path) -> None:
    """Keep a copy of FILE as the network NAME, if its digest is right; for machines that reach no source.

    \b
    Examples:
      bench weights add syncnet-v2 ~/Downloads/syncnet_v2.model
    """
    from benchmark import weights as registry

    click.echo(f"{name:26}{registry.add(name, file)}")


def main() -> None:
    """Entry point of the console script; an error that the user can mend is one line, not a traceback."""
    try:
        bench(standalone_mode=True)
    except KeyboardInterrupt:  # pragma: no cover - click handles most of them
        sys.exit(130)


if __name__ == "__main__":
    main()
