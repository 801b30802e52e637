"""The `bench` command: parse, call, print. Heavy imports stay inside each command, so that --help is instant."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark import __version__

if TYPE_CHECKING:
    from pipelines.crop import Crop
    from pipelines.media import Codec

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


@contextmanager
def one_line(*errors: type[Exception]) -> Iterator[None]:
    """Turn the errors that a user can mend into a single line."""
    try:
        yield
    except errors as error:
        raise BenchError(str(error)) from error


workers_option = click.option(
    "--workers", type=click.IntRange(min=1), default=None, help="Processes; default: one for each processor."
)


@bench.command()
@click.argument("dataset")
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Folder of the raw dataset.")
@click.option("--identity", multiple=True, help="Only this identity; may be repeated.")
@click.option("--emotion", multiple=True, help="Only this emotion; may be repeated.")
@click.option("--level", multiple=True, type=click.IntRange(1, 3), help="Only this intensity; may be repeated.")
@click.option("--view", multiple=True, help="Only this camera; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many recordings.")
@click.option(
    "--crop",
    type=click.Choice(["square", "portrait", "aligned", "aligned-frame"]),
    default="square",
    show_default=True,
    help="square: EAT-Face; portrait: DICE-Talk; aligned: on five points, per clip or per frame.",
)
@click.option("--size", type=click.Choice(["256", "512"]), help="Side of the clips.  [default: portrait 512, else 256]")
@click.option(
    "--codec",
    type=click.Choice(["h264", "ffv1"]),
    default="h264",
    show_default=True,
    help="h264: visually lossless; ffv1: exact pixels.",
)
@click.option("--write-masks", is_flag=True, help="Also write the face masks of EAT-Face and DICE-Talk.")
@click.option("--split", type=click.Choice(["ratio", "list"]), default=None, help="How identities are split.")
@click.option("--ratio", default="0.8,0.1,0.1", show_default=True, help="Shares of train, val and test.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the ratio split.")
@click.option(
    "--split-file", type=click.Path(path_type=Path), help="For --split list: a CSV with the header identity,split."
)
@click.option("--name", help="Folder below WORKSPACE/data.  [default: the dataset's name]")
@workers_option
@click.option("--resume/--fresh", default=True, show_default=True, help="Keep the clips made before, or make all anew.")
@click.pass_obj
def prepare(
    workspace: Path,
    /,
    dataset: str,
    root: Path,
    size: str | None,
    crop: Crop,
    codec: Codec,
    write_masks: bool,
    split: str | None,
    ratio: str,
    seed: int,
    split_file: Path | None,
    name: str | None,
    workers: int | None,
    resume: bool,
    **chosen: Any,
) -> None:
    """Turn a raw DATASET (mead, demo) into clips and a manifest: 25 fps, 16 kHz, one face in a square.

    Interrupted at any moment, the same command goes on where it stopped and ends with the same bytes.

    \b
    Examples:
      bench prepare mead --root /data/MEAD
      bench prepare mead --root /data/MEAD --view front --level 2 --limit 20
      bench prepare mead --root /data/MEAD --crop portrait --name mead-portrait
      bench prepare mead --root /data/MEAD --split list --split-file my-split.csv
    """
    from benchmark import engine
    from benchmark import prepare as job
    from pipelines import crop as crops
    from pipelines.datasets import DatasetError
    from pipelines.manifest import ManifestError
    from pipelines.splits import SplitError
    from pipelines.stages import Settings

    settings = Settings(crop, int(size) if size else crops.DEFAULT_SIZE[crop], codec, write_masks)
    with one_line(job.PrepareError, DatasetError, SplitError, ManifestError):
        folder = job.data_folder(workspace, name or dataset)
        summary = job.prepare(
            dataset,
            root,
            folder,
            settings=settings,
            filters=job.Filters(**chosen),
            split=job.split_rule(dataset, split, ratio, seed, split_file),
            workers=workers or engine.default_workers(),
            fresh=not resume,
        )
    click.echo(summary.text())
    if summary.failed:
        raise SystemExit(1)


@bench.group("manifest")
def manifest_group() -> None:
    """Look into the manifest of a prepared dataset."""


@manifest_group.command("show")
@click.argument("name")
@click.option("--rejected", is_flag=True, help="What did not make it, with the reasons.")
@click.pass_obj
def manifest_show(workspace: Path, name: str, rejected: bool) -> None:
    """Print the split card, counts and digest of the dataset NAME (or of a manifest.parquet).

    \b
    Examples:
      bench manifest show mead
      bench manifest show mead --rejected
    """
    from benchmark import prepare as job
    from pipelines.manifest import ManifestError

    with one_line(ManifestError, job.PrepareError):
        click.echo(job.show(job.find_manifest(workspace, name), rejected=rejected))


@manifest_group.command("check")
@click.argument("name")
@click.option("--quick", is_flag=True, help="Do not read the files to compare their digests.")
@click.pass_obj
def manifest_check(workspace: Path, name: str, quick: bool) -> None:
    """Check that each clip of the dataset NAME is there, unchanged, and that no identity is in two splits.

    \b
    Examples:
      bench manifest check mead
      bench manifest check shared/mead/manifest.parquet --quick
    """
    from benchmark import prepare as job
    from pipelines import manifest
    from pipelines.manifest import ManifestError

    with one_line(ManifestError, job.PrepareError):
        path = job.find_manifest(workspace, name)
        problems = manifest.check(path, digests=not quick)
    for problem in problems:
        click.echo(problem)
    click.echo(f"{path}: {len(problems)} problems" if problems else f"{path}: in order, digest {job.digest(path)[:16]}")
    if problems:
        raise SystemExit(1)


@bench.command()
@click.pass_obj
def doctor(workspace: Path) -> None:
    """Say what this machine has, what is missing and the command that gets it; exits with 1 if the demo cannot run.

    \b
    Examples:
      bench doctor
      bench --workspace /data/work doctor
    """
    from benchmark import doctor as checks

    findings = list(checks.examine(workspace))
    click.echo(checks.report(findings))
    if any(finding.state == "broken" for finding in findings):
        raise BenchError("the demo cannot run here; mend what is called broken above")


def main() -> None:
    """Entry point of the console script; an error that the user can mend is one line, not a traceback."""
    try:
        bench(standalone_mode=True)
    except KeyboardInterrupt:  # pragma: no cover - click handles most of them
        sys.exit(130)


if __name__ == "__main__":
    main()
