"""The `bench` command: parse, call, print. Heavy imports stay inside each command, so that --help is instant."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark import __version__
from benchmark.errors import BenchError

if TYPE_CHECKING:
    from benchmark.figures import Bars, Drawn
    from benchmark.qualitative import At
    from pipelines.crop import Crop
    from pipelines.media import Codec
    from pipelines.splits import By

EXAMPLES = """\b
Examples:
  bench demo                                    a synthetic dataset, end to end
  bench prepare mead --root /data/MEAD          crop, align, resample, write a manifest
  bench eval --method ours-p                    score a method on a protocol
  bench leaderboard --protocol demo             CSV and Markdown tables
"""


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
@click.option(
    "--split",
    metavar="RULE",
    help="ratio, list, or a paper's: dice-talk-mead, dice-talk-hdtf, eat-mead, edtalk-mead, eat-face-mead, "
    "eat-face-mead-clip-half, eat-face-crema-d, eat-face-crema-d-clip-half.  [default: the dataset's own, else ratio]",
)
@click.option(
    "--ratio", default="0.8,0.1,0.1", show_default=True, help="Shares of train, val and test, alike for each emotion."
)
@click.option(
    "--split-by",
    type=click.Choice(["identity", "sentence", "both", "clip"]),
    help="What the ratio keeps in one split; sentence and clip let identities overlap.  [default: identity]",
)
@click.option(
    "--hold-out-emotion", "hold_out", multiple=True, help="Leave this emotion to the test split; may be repeated."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the ratio split.")
@click.option(
    "--split-file", type=click.Path(path_type=Path), help="For --split list: a CSV with the header identity,split."
)
@click.option("--name", help="Folder below WORKSPACE/data.  [default: the dataset's name]")
@workers_option
@click.option("--resume/--fresh", default=True, show_default=True, help="Keep the clips made before, or make all anew.")
@click.option("--dry-run", is_flag=True, help="Print the split and how many clips would be made; write nothing.")
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
    split_by: By | None,
    hold_out: tuple[str, ...],
    name: str | None,
    workers: int | None,
    resume: bool,
    dry_run: bool,
    **chosen: Any,
) -> None:
    """Turn a raw DATASET into clips and a manifest: 25 fps, 16 kHz, one face in a square.

    DATASET is mead, crema-d, hdtf, voxceleb2, ravdess, portraits (a folder of images and one of speech) or demo.

    Interrupted at any moment, the same command goes on where it stopped and ends with the same bytes.

    \b
    Examples:
      bench prepare mead --root /data/MEAD
      bench prepare mead --root /data/MEAD --view front --level 2 --limit 20
      bench prepare mead --root /data/MEAD --crop portrait --name mead-portrait
      bench prepare mead --root /data/MEAD --split list --split-file my-split.csv
      bench prepare mead --root /data/MEAD --split eat-mead --dry-run
      bench prepare hdtf --root /data/HDTF --split dice-talk-hdtf --crop portrait --name hdtf-dice-talk
    """
    from benchmark import engine
    from benchmark import prepare as job
    from pipelines import crop as crops
    from pipelines.datasets import DatasetError
    from pipelines.manifest import ManifestError
    from pipelines.splits import SplitError
    from pipelines.stages import Settings

    settings = Settings(crop, int(size) if size else crops.DEFAULT_SIZE[crop], codec, write_masks)
    with one_line(DatasetError, SplitError, ManifestError):
        folder, filters = job.data_folder(workspace, name or dataset), job.Filters(**chosen)
        rule = job.split_rule(dataset, split, ratio, seed, split_file, by=split_by, hold_out=hold_out)
        if dry_run:
            click.echo(
                job.dry_run(dataset, root, folder, settings=settings, filters=filters, split=rule, fresh=not resume)
            )
            return
        summary = job.prepare(
            dataset,
            root,
            folder,
            settings=settings,
            filters=filters,
            split=rule,
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

    with one_line(ManifestError):
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

    with one_line(ManifestError):
        path = job.find_manifest(workspace, name)
        problems = manifest.check(path, digests=not quick)
        overlap = manifest.declared_overlap(path)
    if overlap:
        click.echo(f"{path}: identities may overlap: {len(overlap)} in several splits, as the split's rule has it")
    for problem in problems:
        click.echo(problem)
    click.echo(f"{path}: {len(problems)} problems" if problems else f"{path}: in order, digest {job.digest(path)[:16]}")
    if problems:
        raise SystemExit(1)


@manifest_group.command("leaks")
@click.argument("names", nargs=-1, required=True)
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    help="Cosine from which faces of two people are suspicious.  [default: 0.4]",
)
@workers_option
@click.pass_obj
def manifest_leaks(workspace: Path, names: tuple[str, ...], threshold: float | None, workers: int | None) -> None:
    """Say what makes a clip of one split known to another, in the datasets NAMES (or manifest.parquet files) that are
    trained and tested on together; exits with 1 if there is a leak or a suspicion.

    The same person, raw file, film or sound in two splits; a sound under two labels; and faces that look alike under
    two names, with their pictures in WORKSPACE/leaks. A threshold tells no two people apart for certain: look. The
    people of the demo dataset are morphs of two portraits and are suspected with reason.

    \b
    Examples:
      bench manifest leaks mead
      bench manifest leaks mead hdtf shared/crema-d/manifest.parquet
      bench manifest leaks mead --threshold 0.5 --workers 8
    """
    from benchmark import engine
    from benchmark import leaks as job
    from pipelines.manifest import ManifestError

    with one_line(ManifestError):
        found = job.examine(
            names,
            workspace,
            threshold=job.THRESHOLD if threshold is None else threshold,
            workers=workers or engine.default_workers(),
        )
    click.echo(found.text())
    if not found.clean:
        raise SystemExit(1)


@bench.group(invoke_without_command=True)
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Say what this machine has, what is missing and the command that gets it; exits with 1 if the demo cannot run.

    \b
    Examples:
      bench doctor
      bench --workspace /data/work doctor
      bench doctor data mead --root /data/MEAD      the defects of a raw dataset
    """
    from benchmark import doctor as checks

    if ctx.invoked_subcommand is not None:
        return
    findings = list(checks.examine(ctx.obj))
    click.echo(checks.report(findings))
    if any(finding.state == "broken" for finding in findings):
        raise BenchError("the demo cannot run here; mend what is called broken above")


@doctor.command("data")
@click.argument("dataset")
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Folder of the raw dataset.")
@click.option("--digests", is_flag=True, help="Read every file through, where the dataset has published digests.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Parquet file of all findings.  [default: WORKSPACE/doctor/DATASET.parquet]",
)
@workers_option
@click.pass_obj
def doctor_data(
    workspace: Path, dataset: str, root: Path, digests: bool, out: Path | None, workers: int | None
) -> None:
    """Say every defect of the raw tree of DATASET that shows without decoding; exits with 1 if one is fatal.

    Names, counts, headers of every file, and files with equal bytes. Fatal: recordings would be lost or wrongly
    labelled. Warning: not what was published. Note: worth knowing.

    \b
    Examples:
      bench doctor data mead --root /data/MEAD
      bench doctor data crema-d --root /data/CREMA-D --digests --workers 8
      bench doctor data hdtf --root /data/HDTF --out hdtf-findings.parquet
    """
    from benchmark import doctor_data as job
    from benchmark import engine
    from benchmark.errors import writable, writing
    from pipelines.datasets import DatasetError, load

    path = out or workspace / "doctor" / f"{dataset}.parquet"
    with one_line(DatasetError):
        load(dataset)
        writable(path.parent)
        found = job.examine(dataset, root, digests=digests, workers=workers or engine.default_workers())
    with writing(path.parent):
        job.write(found.findings, path)
    click.echo(job.report(found, path))
    if found.fatal:
        raise SystemExit(1)


protocol_option = click.option(
    "--protocol", "protocol_name", default="demo", show_default=True, help="Name, or path of a TOML file."
)
device_option = click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where networks run."
)


@bench.command()
@click.option("--method", "method_name", required=True, help="Name, or path of a TOML file.")
@protocol_option
@workers_option
@click.option("--resume/--fresh", default=True, show_default=True, help="Keep the videos made before, or not.")
@device_option
@click.pass_obj
def generate(
    workspace: Path, method_name: str, protocol_name: str, workers: int | None, resume: bool, device: str
) -> None:
    """Run a method over a protocol: one video a pair in WORKSPACE/generated/METHOD/PROTOCOL.

    Only what is missing or changed is made (the clips, the method's options, weights and checkpoints, the code of its
    generator; not what that imports: --fresh); exits with 1 if a video could not be made.

    \b
    Examples:
      bench generate --method still
      bench generate --method my-method.toml --protocol demo --workers 4
    """
    from collections import Counter

    from benchmark import engine, protocol
    from benchmark import generate as job

    asked, method = protocol.load(protocol_name, workspace), job.load_method(method_name, workspace)
    workers = workers or engine.default_workers()
    made = job.generate(method, asked, workspace, workers=workers, fresh=not resume, device=device)
    errors = Counter(one.error for one in made.values() if one.error)
    click.echo(f"{len(made) - errors.total()} of {len(made)} videos in {job.folder(method.name, asked, workspace)}")
    for reason, count in errors.most_common():
        click.echo(f"  {count}x {reason}")
    if errors:
        raise SystemExit(1)


@bench.command("eval")
@click.option("--method", "method_name", help="Name, or path of a TOML file; what is missing is generated first.")
@click.option(
    "--videos", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A folder of videos to score."
)
@click.option("--name", help="What to call the method that made --videos.")
@protocol_option
@click.option("--metrics", "words", help="all, or names and families, comma-separated.  [default: the protocol's]")
@click.option("--allow-partial", is_flag=True, help="Let set-level metrics (FID) score an incomplete set, marked.")
@workers_option
@device_option
@click.pass_obj
def evaluate(
    workspace: Path,
    method_name: str | None,
    videos: Path | None,
    name: str | None,
    protocol_name: str,
    words: str | None,
    allow_partial: bool,
    workers: int | None,
    device: str,
) -> None:
    """Score a method, or a folder of videos named by the ids of `bench protocol export`, on a protocol.

    What was extracted before is never extracted again; --metrics adds to what was scored before. What cannot be scored
    is a row with its reason; exits with 1 if there is no value at all. The noise floor (real against real) is scored
    along.

    \b
    Examples:
      bench eval --method ground-truth
      bench eval --videos outputs/ --name my-method --protocol demo
      bench eval --method still --device cuda --workers 1
      bench eval --method still --metrics all
      bench eval --method still --metrics fid,fvd/i3d-16f,lpips
    """
    from collections import Counter

    from benchmark import engine, protocol
    from benchmark import evaluate as job

    if (method_name is None) == (videos is None) or (videos is None) != (name is None):
        raise BenchError("give either --method NAME, or --videos DIR together with --name NAME")
    asked = protocol.load(protocol_name, workspace)
    metrics = () if words is None else job.chosen(words)
    settings = job.Settings(workers or engine.default_workers(), device, allow_partial, metrics)
    if videos is not None and name is not None:
        done = job.evaluate_videos(videos, name, asked, workspace, settings)
    else:
        done = job.evaluate_method(str(method_name), asked, workspace, settings)
    for remark in done.remarks:
        click.echo(remark)
    failed = sum(row.error is not None for row in done.rows)
    click.echo(f"{len(done.rows)} rows, {failed} of them with a reason instead of a value, in {done.path}")
    if failed == len(done.rows):
        [(reason, count)] = Counter(row.error for row in done.rows).most_common(1)
        raise BenchError(f"no value could be computed ({count}x {reason})")


@bench.group(invoke_without_command=True)
@click.option("--protocol", "protocol_name", help="Name, or path of a TOML file.  [default: demo, or the layout's own]")
@click.option("--intervals", is_flag=True, help="Show the 95 % interval behind each number.")
@click.option("--common", is_flag=True, help="Count only the clips that every method has a value for.")
@click.option(
    "--rank-from",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the clips from which on a value is ranked.",
)
@click.option(
    "--with",
    "others",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Results of the same protocol from elsewhere: a folder like WORKSPACE/results/PROTOCOL. Repeatable.",
)
@click.option("--layout", help="Lay the table out as a paper does, with the paper's own rows in grey.")
@click.option("--layouts", "listed", is_flag=True, help="List the layouts, and leave.")
@click.option("--published-only", is_flag=True, help="With --layout: the paper's own rows only.")
@click.option(
    "--ratings",
    "rated",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="With --layout: a user study, as CSV with participant, method, video, aspect, score.",
)
@click.option(
    "--clusters",
    "clustered",
    multiple=True,
    metavar="NAME=FILE",
    help="With --layout dice-talk-table-5: a row from what `bench clusters --out FILE` wrote. Repeatable.",
)
@click.pass_context
def leaderboard(
    ctx: click.Context,
    protocol_name: str | None,
    intervals: bool,
    common: bool,
    rank_from: float,
    others: tuple[Path, ...],
    layout: str | None,
    listed: bool,
    published_only: bool,
    rated: Path | None,
    clustered: tuple[str, ...],
) -> None:
    """Print the table of everything evaluated on a protocol, or a paper's table; write it as CSV, Markdown and LaTeX.

    With --layout and --protocol, the layout's columns show the rows of that protocol, without the paper's own. Beside
    a protocol's table lie tidy.csv (intervals), compared.csv (each method against the best, Holm-corrected),
    people.csv (each person's mean) and provenance.csv.

    \b
    Examples:
      bench leaderboard
      bench leaderboard --protocol demo --intervals
      bench leaderboard --protocol demo --with other-lab/results/demo --common
      bench leaderboard verify workspace/results/demo
      bench leaderboard --layouts
      bench leaderboard --layout dice-talk-table-1
      bench leaderboard --layout eat-face-table-1 --published-only
      bench leaderboard --layout eat-face-table-1 --protocol demo
      bench leaderboard --layout dice-talk-table-3 --ratings study.csv
      bench leaderboard --layout dice-talk-table-5 --clusters audio=audio.csv --clusters "video + audio=both.csv"
    """
    if ctx.invoked_subcommand:
        return
    from benchmark import protocol
    from benchmark.publish import publish, publish_layout
    from leaderboards import clusterings
    from leaderboards.papers import LAYOUTS
    from leaderboards.tables import Style

    workspace: Path = ctx.obj
    if listed:
        for name, of in LAYOUTS.items():
            filled = [*filter(None, of.groups.values()), *(["--ratings"] if of.scales else [])]
            filled += ["--clusters"] if any(c.metric.startswith(clusterings.FAMILY) for c in of.columns) else []
            click.echo(f"{name:20}{f'{of.paper}, {of.table}':22}{', '.join(filled)}")
        return
    of_layouts = {"--ratings": rated, "--clusters": clustered, "--published-only": published_only}
    asked = [option for option, given in of_layouts.items() if given]
    if asked and not layout:
        raise BenchError(f"{asked[0]} needs --layout; `bench leaderboard --layouts`")
    of_rows: dict[str, object] = {
        "--protocol": protocol_name,
        "--ratings": rated,
        "--clusters": clustered,
        "--intervals": intervals,
    }
    of_rows |= {"--common": common, "--with": others, "--rank-from": rank_from != 1}
    if published_only and (drop := [option for option, given in of_rows.items() if given]):
        raise BenchError(f"--published-only shows nothing measured; drop {', '.join(drop)}")
    if protocol_name and protocol_name.endswith(".toml"):
        protocol_name = protocol.load(protocol_name, workspace).name
    style = Style(rank_from, intervals)
    if layout:
        done = publish_layout(
            layout,
            workspace,
            protocol=protocol_name,
            published_only=published_only,
            rated=rated,
            clustered=clustered,
            others=others,
            common=common,
            style=style,
        )
    else:
        done = publish(protocol_name or "demo", workspace, others=others, common=common, style=style)
    for remark in done.remarks:
        click.echo(remark, err=True)
    click.echo(done.markdown)
    click.echo(f"{', '.join(done.files)} are in {done.folder}", err=True)


@leaderboard.command("verify")
@click.argument("submitted", metavar="RESULTS", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--tidy",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The tidy.csv that was printed from them.  [default: RESULTS/tidy.csv, where it is]",
)
def leaderboard_verify(submitted: Path, tidy: Path | None) -> None:
    """Check results that somebody submitted: a folder like WORKSPACE/results/PROTOCOL, with runs/ beside the rows.

    Every record must be the one its id was made from, every clip of a run must have its row, and every number of
    tidy.csv must follow from the rows. Exits with 1 where something does not.

    \b
    Examples:
      bench leaderboard verify workspace/results/demo --tidy workspace/tables/demo/tidy.csv
      bench leaderboard verify submission/
    """
    from benchmark.submission import verify

    found = verify(submitted, tidy)
    click.echo("\n".join([*found.problems, found.summary]))
    if found.problems:
        raise SystemExit(1)


@bench.group("protocol")
def protocol_group() -> None:
    """Evaluation protocols: list, show, export."""


@protocol_group.command("list")
@click.pass_obj
def protocol_list(workspace: Path) -> None:
    """List the protocols of the package and of WORKSPACE/protocols.

    \b
    Examples:
      bench protocol list
    """
    from benchmark import configs, protocol

    for name in sorted(configs.available("protocols", workspace)):
        asked = protocol.load(name, workspace)
        click.echo(f"{name:24}{asked.dataset:22}{asked.conditioning:13}{asked.title}")


@protocol_group.command("show")
@click.argument("name")
@click.pass_obj
def protocol_show(workspace: Path, name: str) -> None:
    """Print a protocol's file and digest.

    \b
    Examples:
      bench protocol show demo
    """
    from benchmark import configs, protocol

    path = configs.find("protocols", name, workspace)
    click.echo(f"{path.read_text(encoding='utf-8')}\n# {path}\n# digest {protocol.load(name, workspace).digest}")


@protocol_group.command("export")
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write.")
@click.pass_obj
def protocol_export(workspace: Path, name: str, to: Path) -> None:
    """Write what any outside method needs: portraits, sounds, emotion labels, target videos and pairs.csv.

    Name the method's videos <pair_id>.mp4 and score them with `bench eval --videos DIR --name NAME`.

    \b
    Examples:
      bench protocol export demo --to export/
    """
    from benchmark import protocol
    from pipelines.media import MediaError

    with one_line(MediaError, OSError):
        rows = protocol.export(protocol.load(name, workspace), workspace, to)
    click.echo(f"{len(rows)} pairs in {to / 'pairs.csv'}")
    for row in rows:
        if row["error"]:
            click.echo(f"  {row['pair_id']}: {row['error']}")


@bench.group("metrics")
def metrics_group() -> None:
    """Metrics and their variants: list, show."""


@metrics_group.command("list")
def metrics_list() -> None:
    """List every metric: version, direction, networks, and whether it can be computed here.

    \b
    Examples:
      bench metrics list
    """
    from benchmark import catalogue

    click.echo(catalogue.table())


@metrics_group.command("show")
@click.argument("name")
def metrics_show(name: str) -> None:
    """Print what a metric is: definition, constants, source, what it is given, networks.

    \b
    Examples:
      bench metrics show fid/torch-fidelity
    """
    from benchmark import catalogue

    click.echo(catalogue.describe(name))


@bench.group("methods")
def methods_group() -> None:
    """Methods that can be generated and scored: list, show, check a checkout of somebody's method."""


@methods_group.command("list")
@click.pass_obj
def methods_list(workspace: Path) -> None:
    """List the methods of the package and of WORKSPACE/methods, and whose checkout is known here.

    \b
    Examples:
      bench methods list
    """
    from benchmark import checkouts, configs
    from benchmark.generate import load_method

    rows = [("name", "kind", "conditioning", "driven by", "checkout", "title", "licence")]
    for name in sorted(configs.available("methods", workspace)):
        method = load_method(name, workspace)
        place = "-"
        if method.call is not None:
            place = "known" if checkouts.find(name, method.call, workspace) else "wanted"
        about = (method.kind, method.conditioning, method.driven_by or "-", place, method.title, method.licence)
        rows.append((name, *about))
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("".join(map(str.ljust, row, widths)).rstrip())


@methods_group.command("show")
@click.argument("name")
@click.pass_obj
def methods_show(workspace: Path, name: str) -> None:
    """Print a method's file.

    \b
    Examples:
      bench methods show shuffled-audio
    """
    from benchmark import configs
    from benchmark.generate import load_method

    path = configs.find("methods", name, workspace)
    load_method(name, workspace)
    click.echo(f"{path.read_text(encoding='utf-8')}\n# {path}")


@methods_group.command("check")
@click.argument("name")
@click.option("--repo", type=click.Path(path_type=Path), help="Folder of the checkout; remembered once it is whole.")
@click.option("--python", "interpreter", default="python3", show_default=True, help="Interpreter of its environment.")
@protocol_option
@device_option
@click.pass_obj
def methods_check(
    workspace: Path, name: str, repo: Path | None, interpreter: str, protocol_name: str, device: str
) -> None:
    """Say what a method lacks here, or prove it on the first clip of a protocol; exits with 1 if that fails.

    \b
    Examples:
      bench methods check sadtalker                  the steps, where nothing is there yet
      bench methods check sadtalker --repo ~/SadTalker --python ~/SadTalker/.venv/bin/python --device cuda
      bench methods check my-method.toml
    """
    from benchmark import protocol
    from benchmark import trial as job

    asked = protocol.load(protocol_name, workspace)
    tried = job.check(name, repo, interpreter, asked, workspace, device)
    click.echo("\n".join(tried.lines))
    if not tried.passed:
        raise SystemExit(1)


@bench.command()
@click.option("--accept", is_flag=True, help="Accept the licences of the networks that it uses.")
@click.option("--generators", is_flag=True, help="Train the tiny generators instead, and make the table of those.")
@workers_option
@click.pass_obj
def demo(workspace: Path, accept: bool, generators: bool, workers: int | None) -> None:
    """Go from a raw dataset to a leaderboard on synthetic data: no licence, no GPU, about ten minutes on two cores.

    With --generators the tiny preset of each generator is trained on it (half an hour), makes four clips of one second,
    and is scored on exactly those beside the baselines. Interrupted, the same command goes on where it stopped.

    \b
    Examples:
      bench demo
      bench demo --generators
      bench --workspace /scratch/demo demo --accept
    """
    from benchmark import demo as job
    from benchmark import engine
    from pipelines.datasets import DatasetError
    from pipelines.manifest import ManifestError
    from pipelines.splits import SplitError
    from reference_models.fit import FitError

    run = job.generators if generators else job.run
    with one_line(DatasetError, ManifestError, SplitError, FitError):
        steps = run(workspace, workers=workers or engine.default_workers(), accept=accept, say=click.echo)
    click.echo("\n".join(f"{step.seconds:7.1f} s  {step.name}" for step in steps))


@bench.command()
@click.argument("embeddings", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--normalise", is_flag=True, help="Scale every embedding to length 1 first.")
@click.option("--min-size", default=2, show_default=True, help="Clips that an emotion of an identity must have.")
@click.option(
    "--permutations", default=1000, show_default=True, type=click.IntRange(0), help="Shuffles of the emotions."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the shuffles.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write a CSV file.")
def clusters(embeddings: Path, normalise: bool, min_size: int, permutations: int, seed: int, out: Path | None) -> None:
    """Clustering strength d_inter / d_intra of emotions (DICE-Talk, Table 5) in any embedding.

    EMBEDDINGS is a Parquet table with the columns identity, emotion and embedding (a list of numbers), a row a clip.
    Each value stands beside what it would be with the emotions of each identity shuffled.

    \b
    Examples:
      bench clusters emotion-prior.parquet
      bench clusters emotion-prior.parquet --normalise --out audio.csv
      bench leaderboard --layout dice-talk-table-5 --clusters audio=audio.csv
    """
    from benchmark import clusters as job
    from metrics import MetricError

    with one_line(MetricError):
        found = job.measure(embeddings, normalise=normalise, min_size=min_size, permutations=permutations, seed=seed)
    if out:
        options = {"normalise": normalise, "min_size": min_size, "permutations": permutations, "seed": seed}
        job.write(found, out, embeddings, **options)
    click.echo(job.text(found))


@bench.command()
@click.argument("names", nargs=-1)
@click.option(
    "--media", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder with published files."
)
@click.option("--slow", is_flag=True, help="Also check what takes minutes: FVD of 128 + 128 videos.")
def verify(names: tuple[str, ...], media: Path | None, slow: bool) -> None:
    """Compute published values again with the networks at hand, and print both; with NAMES, of those metrics only.

    "published" was printed by somebody else; "ours" was measured by us and agreed with another implementation. Inputs
    are made on the spot, or are files that somebody publishes: those are looked for anywhere below --media, by their
    SHA-256. The exit status is 1 if a value differs by more than its tolerance.

    \b
    Examples:
      bench verify
      bench verify fvd lpips/alex
      bench verify --media downloads/ --slow
    """
    from benchmark import verify as job

    wanted, left = job.chosen(names, slow)
    found, problems = job.find(media) if media else ({}, [])
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(job.HEAD)
    states: list[str] = []
    missing: dict[str, str] = {}
    for outcome in job.run(wanted, found):
        click.echo(job.line(outcome))
        states.append(outcome.state)
        missing.update(outcome.missing)
    for fixture in left:
        click.echo(f"left out, takes minutes: {fixture.values[0].metric} on {fixture.title}; --slow checks it")
    for how in dict.fromkeys(missing.values()):
        click.echo(f"to get {', '.join(name for name, of in missing.items() if of == how)}: {how}")
    click.echo(", ".join(f"{states.count(state)} {state.lower()}" for state in ("ok", "FAILED", "unavailable")))
    if "FAILED" in states:
        raise SystemExit(1)


@bench.group("train")
def train_group() -> None:
    """Train a network of the suite on a prepared dataset."""


@train_group.command("emotion-classifier")
@click.option("--data", metavar="NAME", required=True, help="Prepared dataset, or a manifest.parquet.")
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True, help="More of them go on training.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Frames a step.")
@click.option("--learning-rate", type=float, default=1e-4, show_default=True, help="Of AdamW.")
@click.option(
    "--labels",
    type=click.Choice(["mead", "affectnet-7", "crema-d", "dice-talk"]),
    default="mead",
    show_default=True,
    help="Emotions to tell apart, where the data has them: MEAD's eight, or seven (without contempt), six, four.",
)
@click.option("--size", type=click.IntRange(32, 512), default=224, show_default=True, help="Side of a frame in pixels.")
@click.option("--frames-per-clip", type=click.IntRange(1), default=16, show_default=True, help="Spread evenly.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--resume/--fresh", default=True, show_default=True, help="Go on where it stopped, or train anew.")
@device_option
@workers_option
@click.pass_obj
def train_emotion_classifier(
    workspace: Path, /, data: str, device: str, workers: int | None, resume: bool, **chosen: Any
) -> None:
    """Train EAT-Face's VGG-16 emotion classifier for Emo-Acc, on the train split of a prepared dataset.

    The val split chooses the step, the real frames of the test split say how good it is. The classifier is installed
    for the metrics emo-acc; it refuses to score clips that it was trained on. One is installed at a time: `bench
    weights add emotion-classifier-vgg16 FILE` takes another one back, and every run records the digest of its own.
    Interrupted, the same command goes on where it stopped. The defaults want a GPU; on a CPU choose a small --size.

    \b
    Examples:
      bench train emotion-classifier --data mead-eat-face --device cuda
      bench train emotion-classifier --data crema-d --labels crema-d --size 64 --steps 500
    """
    from benchmark import engine
    from benchmark import train as job
    from benchmark.prepare import find_manifest
    from pipelines.datasets import DatasetError
    from pipelines.manifest import ManifestError
    from reference_models.fit import FitError

    with one_line(ManifestError, DatasetError, FitError):
        at, settings = find_manifest(workspace, data), job.Settings(**chosen)
        workers = workers or engine.default_workers()
        done = job.emotion_classifier(at, workspace, settings, device=device, workers=workers, resume=resume)
    click.echo(done.text())


def _model_command(model: str, about: str, examples: str) -> None:
    """Add `bench train MODEL`: the models share their options."""

    @train_group.command(
        model, help=f"{about}\n\n\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples.split("; "))
    )
    @click.option("--data", multiple=True, required=True, metavar="NAME", help="Prepared dataset; may be repeated.")
    @click.option("--preset", default="", help="Size of the model.  [default: full]")
    @click.option("--stage", default="all", show_default=True, help="One stage of the training, or all.")
    @click.option(
        "--ablation",
        default="",
        help="Leave a part of the method out, as the paper's ablation does; all: each of them, after the whole model.",
    )
    @click.option("--steps", type=click.IntRange(1), help="Optimiser steps a stage.  [default: the preset's]")
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
    @click.option("--precision", type=click.Choice(["no", "fp16", "bf16"]), default="no", show_default=True)
    @click.option("--resume/--fresh", default=True, show_default=True, help="Go on where it stopped, or train anew.")
    @click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Of the preset; may be repeated.")
    @device_option
    @click.pass_obj
    def command(workspace: Path, /, data: tuple[str, ...], **chosen: Any) -> None:
        from benchmark import training
        from benchmark.prepare import find_manifest
        from pipelines.manifest import ManifestError
        from reference_models.fit import FitError

        with one_line(ManifestError, FitError):
            manifests = [find_manifest(workspace, name) for name in data]
            chosen["options"] = training.options(chosen["options"])
            wanted = chosen.pop("ablation")
            for ablation in ("", *training.ablations(model)) if wanted == "all" else (wanted,):
                settings = training.Settings(ablation=ablation, **chosen)
                done = training.train(model, manifests, workspace, settings)
                for remark in done.remarks:
                    click.echo(remark)
                click.echo(str(done.path))


_model_command(
    "dice-talk-embedder",
    "Train DICE-Talk's emotion embedder. Its expression coefficients are --option coefficients=3dmm-64 (files beside "
    "the clips), blendshapes-52 or mesh-64; then `bench embed`.",
    "bench train dice-talk-embedder --data demo --preset tiny; "
    "bench train dice-talk-embedder --data mead-dice-talk --data hdtf-dice-talk --option coefficients=blendshapes-52",
)
_model_command(
    "dice-talk",
    "Train DICE-Talk's diffusion model, after its embedder on the same data. Ours-P and Ours-V generate with it.",
    "bench train dice-talk --data demo --preset tiny; "
    "bench train dice-talk --data mead-dice-talk --data hdtf-dice-talk --precision bf16 --device cuda; "
    "bench train dice-talk --data demo --preset tiny --ablation no-bank; "
    "bench train dice-talk --data demo --preset tiny --ablation all",
)

_model_command(
    "eat-face",
    "Train EAT-Face, stage by stage: tfr (the reconstructor), eve (the joint embedding), controlnet (the controller), "
    "finetune; the tiny preset trains its own encoders before (vae, speech, pair). --ablation: wo-eve, wo-fec, wo-emo.",
    "bench train eat-face --data mead-eat-face; "
    "bench train eat-face --data mead-eat-face --stage tfr --precision bf16 --device cuda; "
    "bench train eat-face --data demo --preset tiny --ablation wo-eve",
)
_model_command(
    "emotion-anchor",
    "Train the emotion-anchor transformer, stage by stage: audio (content and emotion codes), vq (visual tokens), "
    "transformer.",
    "bench train emotion-anchor --data mead-eat --precision bf16 --device cuda; "
    "bench train emotion-anchor --data mead-eat --stage vq; "
    "bench train emotion-anchor --data demo --preset tiny",
)


@bench.command()
@click.option("--metric", "words", required=True, help="A family (fvd), or one of its metrics, then the default.")
@click.option("--method", "method_name", help="Name of a method or path of its TOML file.")
@click.option(
    "--videos", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of videos instead."
)
@click.option("--name", help="What to call the method that made --videos.")
@protocol_option
@click.option("--allow-partial", is_flag=True, help="Let set-level metrics (FID) score an incomplete set, marked.")
@workers_option
@device_option
@click.pass_obj
def explain(
    workspace: Path,
    words: str,
    method_name: str | None,
    videos: Path | None,
    name: str | None,
    protocol_name: str,
    allow_partial: bool,
    workers: int | None,
    device: str,
) -> None:
    """Score the same clips by all variants of a metric, and tell how far each choice moves the score.

    Choices are taken otherwise one at a time: value range, resizing, crop, frames, number of clips, minimum track, as
    far as the family has them. Features are stored as by `bench eval`, results are not: nothing is extracted twice.

    \b
    Examples:
      bench explain --metric fvd --method still --protocol demo
      bench explain --metric fid/clean-fid --videos outputs/ --name my-method
    """
    from benchmark import engine, evaluate, protocol
    from benchmark import explain as job

    if (method_name is None) == (videos is None) or (videos is None) != (name is None):
        raise BenchError("give either --method NAME, or --videos DIR together with --name NAME")
    asked = protocol.load(protocol_name, workspace)
    job.variants(words, asked)  # a misspelt name is told before anything is generated
    settings = evaluate.Settings(workers or engine.default_workers(), device, allow_partial)
    if videos is not None and name is not None:
        method, entries, matched = evaluate.video_entries(videos, name, asked, workspace)
        click.echo(matched)
    else:
        method, entries = evaluate.method_entries(str(method_name), asked, workspace, settings)
    click.echo(job.text(job.explain(words, entries, method, asked, workspace, settings)))


@bench.group("figures")
def figures_group() -> None:
    """Draw the figures of the papers, as PDF and SVG in WORKSPACE/figures."""


def _say(drawn: Drawn) -> None:
    for remark in drawn.remarks:
        click.echo(remark)
    for path in drawn.files:
        click.echo(path)


def _names(_ctx: click.Context, _option: click.Parameter, words: str) -> list[str]:
    return [word for word in (word.strip() for word in words.split(",")) if word]


def _times(ctx: click.Context, option: click.Parameter, words: str) -> list[float]:
    try:
        return [float(word) for word in _names(ctx, option, words)]
    except ValueError:
        raise BenchError(f"--times {words!r}; expected seconds with commas between, such as 0.2,0.5") from None


embeddings_argument = click.argument("embeddings", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@figures_group.command("tsne")
@embeddings_argument
@click.option("--perplexity", type=float, help="[default: 30, or a third of the other embeddings if they are fewer]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.pass_obj
def figures_tsne(workspace: Path, embeddings: Path, perplexity: float | None, seed: int) -> None:
    """t-SNE of emotion embeddings, coloured by emotion and by intensity (DICE-Talk, Fig. 4c; EAT-Face, Fig. 5).

    EMBEDDINGS is a Parquet table as for `bench clusters`: identity, emotion and embedding (a list of numbers), a row a
    clip; with a column intensity (1, 2, 3 or none) a second panel shows it.

    \b
    Examples:
      bench figures tsne emotion-prior.parquet
      bench figures tsne emotion-prior.parquet --perplexity 50 --seed 1
    """
    from benchmark import figures as job
    from metrics import MetricError

    with one_line(MetricError):
        _say(job.tsne(embeddings, workspace, perplexity=perplexity, seed=seed))


@figures_group.command("similarity")
@embeddings_argument
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Another table: its emotions are the columns.",
)
@click.option("--softmax", is_flag=True, help="Show the softmax of the cosines over each row, as EAT-Face does.")
@click.pass_obj
def figures_similarity(workspace: Path, embeddings: Path, against: Path | None, softmax: bool) -> None:
    """Heat map of the cosines between mean embeddings of emotions (EAT-Face, Fig. 7).

    The vectors of an emotion are averaged as they are, then the cosine is taken: of the table with itself, or of
    pictures with texts, say, by --against. Tables are as for `bench figures tsne`. The temperature of EAT-Face's
    softmax is not told; here it is 1.

    \b
    Examples:
      bench figures similarity visual.parquet
      bench figures similarity visual.parquet --against text.parquet --softmax
    """
    from benchmark import figures as job
    from metrics import MetricError

    with one_line(MetricError):
        _say(job.similarity(embeddings, workspace, against=against, softmax=softmax))


@figures_group.command("confusion")
@protocol_option
@click.option("--method", required=True, help="Name of a method that was evaluated.")
@click.option("--metric", default="emo-acc/vgg16", show_default=True, help="A metric with a confusion matrix.")
@click.pass_obj
def figures_confusion(workspace: Path, protocol_name: str, method: str, metric: str) -> None:
    """Confusion matrix of emotions asked for and classified, as `bench eval` counted them: shares of rows, and counts.

    \b
    Examples:
      bench figures confusion --protocol eat-face-mead --method my-method
    """
    from benchmark import figures as job
    from benchmark import protocol

    if protocol_name.endswith(".toml"):
        protocol_name = protocol.load(protocol_name, workspace).name
    _say(job.confusion(protocol_name, method, workspace, metric=metric))


@figures_group.command("study")
@click.argument("ratings", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--aspect",
    "aspects",
    type=(str, float, float),
    metavar="NAME LOWEST HIGHEST",
    multiple=True,
    required=True,
    help="An aspect and its scale; may be repeated. Votes are 0 to 1.",
)
@click.option("--by", type=click.Choice(["method", "emotion"]), default="method", show_default=True)
@click.option("--method", help="Show the scores of this method only.")
@click.pass_obj
def figures_study(
    workspace: Path, ratings: Path, aspects: tuple[tuple[str, float, float], ...], by: Bars, method: str | None
) -> None:
    """Bars of a user study: the mean of each method and aspect, with 95 % intervals over participants.

    RATINGS is the CSV file of `bench leaderboard --ratings`: participant, method, video, aspect, score. With one more
    column, emotion, and --by emotion the bars of a method are emotions, as in EAT-Face's Fig. 6. With fewer than ten
    participants no interval is drawn.

    \b
    Examples:
      bench figures study study.csv --aspect Emotion 1 5 --aspect Quality 1 5
      bench figures study study.csv --aspect Tend. 0 1 --aspect Real. 1 10 --by emotion --method ours
    """
    from benchmark import figures as job
    from leaderboards.results import ResultError

    scales = {name: (lowest, highest) for name, lowest, highest in aspects}
    with one_line(ResultError):
        _say(job.study(ratings, workspace, scales, by=by, method=method))


@figures_group.command("grid")
@protocol_option
@click.option("--clips", required=True, callback=_names, help="Pair ids, with commas between.")
@click.option("--methods", required=True, callback=_names, help="Names, or NAME=FOLDER of videos made elsewhere.")
@click.option("--at", type=click.Choice(["word", "time", "emotion"]), required=True, help="What the columns are.")
@click.option("--times", default="", callback=_times, help="Seconds, with commas between.")
@click.option(
    "--labels", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="CSV file: clip, start, label."
)
@click.pass_obj
def figures_grid(
    workspace: Path,
    protocol_name: str,
    clips: list[str],
    methods: list[str],
    at: At,
    times: list[float],
    labels: Path | None,
) -> None:
    """Frames of clips side by side: the reference, the ground truth and each method (DICE-Talk, Figs. 3 and 5;
    EAT-Face, Figs. 3 and 4).

    The frame at t seconds is number round(25 t). Where a video or a frame is missing, its place says why.

    \b
    --at time      columns are --times of each clip; without them five, spread evenly
    --at emotion   columns are emotions: give one clip of each emotion (and identity); --times takes one time, without
                   it the middle of each clip is shown
    --at word      columns are words or phonemes: --labels says in seconds when those that you want to show are spoken

    No dataset here comes with alignments: the labels are yours, from a forced aligner or by ear, a line a column:
    clip,start,label.

    \b
    Examples:
      bench figures grid --clips W108_front_angry_3_001 --methods still,ours=outputs/ --at time --times 0.2,0.6,1
      bench figures grid --clips W108_front_angry_3_001 --methods still --at word --labels words.csv
      bench figures grid --clips W108_front_angry_3_001,W108_front_happy_3_001 --methods still --at emotion
    """
    from benchmark import protocol
    from benchmark import qualitative as job

    asked = protocol.load(protocol_name, workspace)
    _say(job.grid(asked, clips, methods, workspace, at=at, times=times, labels=labels))


@bench.command()
@click.option("--data", multiple=True, required=True, metavar="NAME", help="Prepared dataset; may be repeated.")
@click.option("--checkpoint", required=True, help="File, or name under WORKSPACE/checkpoints.")
@click.option(
    "--modality",
    type=click.Choice(["audio", "video", "both", "all"]),
    default="all",
    show_default=True,
    help="What the embedder is given; all: each of the three, the rows of Table 5.",
)
@click.option(
    "--split",
    "splits",
    type=click.Choice(["train", "val", "test"]),
    multiple=True,
    default=["test"],
    show_default=True,
    help="Of the clips in the tables; may be repeated.",
)
@device_option
@click.pass_obj
def embed(workspace: Path, /, data: tuple[str, ...], modality: str, **chosen: Any) -> None:
    """Emotion priors of a prepared dataset, by DICE-Talk's embedder.

    Writes an embedding table for each modality to WORKSPACE/embeddings, for `bench clusters` and `bench figures tsne`,
    with its clustering strengths; with all modalities, Table 5 of DICE-Talk; and NAME-priors.npz, the mean prior of
    each emotion over the train split, as the training left it of its own clips beside the checkpoint for Ours-P.
    By an EAT-Face: its emotion conditions, and pictures and words before and after the joint embedding, which
    `bench figures tsne` and `similarity` draw (Figs. 5 and 7); --modality is then of no effect.

    \b
    Examples:
      bench embed --data demo --checkpoint dice-talk-embedder-tiny
      bench embed --data mead-dice-talk --checkpoint dice-talk-embedder-full --modality video --split val --split test
      bench embed --data demo --checkpoint eat-face-tiny
    """
    from benchmark import embed as job
    from benchmark.prepare import find_manifest
    from pipelines.manifest import ManifestError

    modalities: list[Any] = list(job.ROWS) if modality == "all" else [modality]
    with one_line(ManifestError):
        manifests = {name if Path(name).suffix != ".parquet" else Path(name).parent.name: name for name in data}
        found = {name: find_manifest(workspace, at) for name, at in manifests.items()}
        click.echo(job.embed(found, workspace=workspace, modalities=modalities, **chosen).text)


def _emotions(ctx: click.Context, option: click.Parameter, words: str) -> list[tuple[str, str]]:
    pairs = [tuple(part.split(":")) for part in words.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise click.BadParameter(f"{words!r}; expected emotions as sad:happy,angry:surprised", ctx, option)
    return [(pair[0], pair[1]) for pair in pairs]


@figures_group.command("interpolation")
@protocol_option
@click.option("--method", required=True, help="ours-p or ours-p-tiny, or one like them.")
@click.option("--clip", required=True, help="Pair id: whose portrait and sound.")
@click.option("--emotions", "pairs", required=True, callback=_emotions, help="A:B, with commas between; a row each.")
@click.option("--columns", type=click.IntRange(2, 12), default=5, show_default=True)
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Of each video.")
@click.option("--change", is_flag=True, help="One video a row in which the emotion changes; columns are its moments.")
@device_option
@click.pass_obj
def figures_interpolation(
    workspace: Path, /, protocol_name: str, method: str, clip: str, device: str, **chosen: Any
) -> None:
    """Frames from one emotion to another, by the prior on the line between theirs (DICE-Talk, Figs. 4d and 5).

    \b
    Examples:
      bench figures interpolation --method ours-p-tiny --clip W108_front_angry_3_001 --emotions sad:happy
      bench figures interpolation --method ours-p --clip W108_front_angry_3_001 --emotions sad:happy,sad:angry --change
    """
    from benchmark import interpolation as job
    from benchmark import protocol

    asked = protocol.load(protocol_name, workspace)
    _say(job.interpolation(method, clip, job.Asked(**chosen), asked, workspace, device))


def main() -> None:
    """Entry point of the console script; an error that the user can mend is one line, not a traceback."""
    try:
        bench(standalone_mode=True)
    except KeyboardInterrupt:  # pragma: no cover - click handles most of them
        sys.exit(130)


if __name__ == "__main__":
    main()
