"""What `bench embed` does: emotion priors of a prepared dataset by a trained embedder, for each of its inputs; the
clustering strength of each (DICE-Talk, Table 5); and the mean prior of each emotion (Ours-P). Or, by an EAT-Face, the
emotion conditions, and pictures and words before and after the joint embedding (its Figs. 5 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from benchmark import clusters, engine, footage, publish, weights
from benchmark.errors import BenchError, writing
from metrics import MetricError
from pipelines import media
from pipelines.datasets import printable
from reference_models.base import Footage, GenerationError
from reference_models.dice_talk import embedding, priors
from reference_models.dice_talk.coefficients import LANDMARKER
from reference_models.dice_talk.embedding import MODEL, EmotionEmbedder, Modality
from reference_models.dice_talk.speech import WHISPER

ROWS: Mapping[Modality, str] = {"audio": "audio", "video": "video", "both": "video + audio"}  # as Table 5 calls them
EAT_FACE = "eat-face"
TABLE = "dice-talk-table-5"
MEASURED = {"normalise": False, "min_size": 2, "permutations": 1000, "seed": 0}  # as `bench clusters`


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embedding tables, the file of mean priors where it was made, and the text for a person."""

    tables: list[Path]
    priors: Path | None
    text: str


def embed(
    data: Mapping[str, Path],
    checkpoint: str,
    workspace: Path,
    *,
    modalities: Sequence[Modality],
    splits: Sequence[str],
    device: str = "cpu",
) -> Embedded:
    """Embed the clips of these splits and write
      WORKSPACE/embeddings/<checkpoint>/<data>-<splits>-<modality>.parquet   identity, emotion, intensity, clip_id,
                        dataset, split, embedding (256 float32): for `bench clusters` and `bench figures tsne`
      ... .clusters.csv beside it, where an identity has two emotions of two clips
      <data>-priors.npz the mean over the train split for each emotion, from both modalities; where both are asked for
      Table 5 of DICE-Talk with these rows, where all three are

    data        names of the datasets and their manifests
    checkpoint  path of a .safetensors file, or its folder's name under WORKSPACE/checkpoints

    Raises BenchError: no such checkpoint, a front end that is not here, no clip in the splits, a clip that cannot be
    embedded; ManifestError.
    """
    path = _checkpoint(checkpoint, workspace)
    engine.check_device(device)
    found: dict[str, list[Footage]] = {}
    for at in data.values():
        for split, clips in footage.splits(at).items():
            found.setdefault(split, []).extend(clips)
    chosen = [(split, clip) for split in splits for clip in found.get(split, ())]
    if not chosen:
        counts = ", ".join(f"{split} {len(clips)}" for split, clips in found.items())
        raise BenchError(f"{', '.join(data)}: no clip in {', '.join(splits)}; there are {counts}")
    stem = f"{'+'.join(data)}-{'+'.join(splits)}"
    if path.name == f"{EAT_FACE}.safetensors":
        return _conditions(path, chosen, workspace / "embeddings" / path.parent.name, stem, device)
    cache = workspace / "checkpoints" / "cache"
    try:
        with writing(workspace):
            loaded = embedding.load(path, weights=_files(), cache=cache, device=device)
            to = workspace / "embeddings" / path.parent.name
            tables = {of: to / f"{stem}-{of}.parquet" for of in modalities}
            for of, table in tables.items():
                _write(table, chosen, _vectors(loaded, [clip for _, clip in chosen], of))
            made = (
                _priors(loaded, found["train"], to / f"{'+'.join(data)}-{priors.NAME}")
                if "both" in modalities and found["train"]
                else None
            )
    except (GenerationError, media.MediaError) as error:
        raise BenchError(" ".join(str(error).split())) from error
    told = [f"{loaded.views.coefficients.type}, {loaded.views.speech.id}, embedder {loaded.digest[:12]}"]
    reports: dict[str, Path] = {}
    for of, table in tables.items():
        told.append(f"\n{ROWS[of]}: {len(chosen)} clips, {table}")
        try:
            strengths = clusters.measure(table, normalise=False, min_size=2, permutations=1000, seed=0)
        except MetricError as error:
            told.append(f"no clustering strength: {error}")
            continue
        reports[ROWS[of]] = table.with_suffix(".clusters.csv")
        clusters.write(strengths, reports[ROWS[of]], table, **MEASURED)
        told.append(clusters.text(strengths))
    if len(reports) == len(ROWS):
        of_paper = publish.publish_layout(TABLE, workspace, clustered=[f"{name}={at}" for name, at in reports.items()])
        told += ["", of_paper.markdown, str(of_paper.folder)]
    if made:
        told.append(str(made))
    return Embedded(list(tables.values()), made, "\n".join(told))


def _conditions(path: Path, chosen: Sequence[tuple[str, Footage]], to: Path, stem: str, device: str) -> Embedded:
    """The tables of reference_models.eat_face.embedding, as TO/STEM-<name>.parquet."""
    from reference_models.eat_face import embedding as joint
    from reference_models.eat_face import networks
    from reference_models.eat_face.presets import WEIGHTS

    splits = {clip.clip_id: split for split, clip in chosen}
    try:
        with writing(to):
            preset = networks.preset_of(path)
            files = {name: weights.path(name, fetch=False) for name in WEIGHTS.get(preset, ()) if name != "sd15-unet"}
            made = joint.embed(networks.read(path, preset, files, device), [clip for _, clip in chosen])
            tables = {name: to / f"{stem}-{name}.parquet" for name in made.vectors}
            for name, table in tables.items():
                _write(table, [(splits[clip.clip_id], clip) for clip in made.clips], list(made.vectors[name]))
    except (GenerationError, media.MediaError, weights.WeightsUnavailable) as error:
        raise BenchError(" ".join(str(error).split())) from error
    told = [f"{len(made.clips)} clips", *map(str, tables.values())]
    if made.left_out:
        told.append(f"without a neutral clip, and left out: {', '.join(made.left_out)}")
    told += [
        f"Fig. 5: bench figures tsne {tables['conditions']}",
        f"Fig. 7: bench figures similarity {tables['words-before']} --against {tables['pictures-before']} --softmax",
        f"        bench figures similarity {tables['conditions']} --against {tables['pictures-after']} --softmax",
    ]
    return Embedded(list(tables.values()), None, "\n".join(told))


def _checkpoint(named: str, workspace: Path) -> Path:
    path = Path(named)
    if path.suffix != ".safetensors":
        path = workspace / "checkpoints" / named / f"{_model(named)}.safetensors"
    if not path.is_file():
        raise BenchError(
            f"{printable(path)}: no such checkpoint; train it with `bench train {_model(named)}`, or give its path"
        )
    return path


def _model(named: str) -> str:
    return EAT_FACE if Path(named).name.startswith(EAT_FACE) else MODEL


def _files() -> dict[str, Path]:
    """Of the front ends' networks those that are on this machine."""
    found = {}
    for name in (WHISPER, LANDMARKER):
        try:
            found[name] = weights.path(name, fetch=False)
        except weights.WeightsUnavailable:
            continue
    return found


def _vectors(embedder: EmotionEmbedder, clips: Sequence[Footage], modality: Modality) -> list[NDArray[np.float32]]:
    shown = tqdm(clips, desc=ROWS[modality], unit="clip", disable=None)
    return [embedder(clip, modality).mean for clip in shown]


def _write(path: Path, chosen: Sequence[tuple[str, Footage]], vectors: Sequence[NDArray[np.float32]]) -> None:
    table = pa.table(
        {
            "clip_id": [clip.clip_id for _, clip in chosen],
            "dataset": [clip.dataset for _, clip in chosen],
            "split": [split for split, _ in chosen],
            "identity": [clip.identity for _, clip in chosen],
            "emotion": [clip.emotion for _, clip in chosen],
            "intensity": pa.array([clip.intensity for _, clip in chosen], pa.int32()),
            "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
        }
    )
    with media.atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _priors(embedder: EmotionEmbedder, clips: Sequence[Footage], path: Path) -> Path | None:
    """The file of mean priors, or None where no clip of the train split has an emotion."""
    made = priors.average(embedder, tqdm(clips, desc="priors", unit="clip", disable=None))
    if not made.means:
        return None
    priors.write(made, path)
    return path
