"""How fast headers are read, beside a probe that decodes the first frame: python -m benchmark.perf.doctor FOLDER

One process, the same files in the same order, each read once before the clock starts (the disk's cache is not what is
compared). Prints files a second of both and their ratio.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipelines import headers, media
from pipelines.media import MediaError

VIDEO = {".mp4", ".mov", ".avi", ".mkv", ".flv", ".mpg"}


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m benchmark.perf.doctor FOLDER")
    files = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.suffix.lower() in VIDEO)
    if not files:
        raise SystemExit(f"{sys.argv[1]}: no video below it")
    for path in files:
        path.read_bytes()
    only = rate(headers.read, files)
    decoding = rate(media.probe, files)
    print(f"{len(files)} files\nheaders alone      {only:8.0f} files/s\nwith a first frame {decoding:8.0f} files/s")
    print(f"ratio              {only / decoding:8.1f}")


def rate(read: Callable[[Path], object], files: list[Path]) -> float:
    """Files a second, over at least 100 reads."""
    rounds = -(-100 // len(files))
    start = time.perf_counter()
    for path in files * rounds:
        try:
            read(path)
        except MediaError as error:
            print(error, file=sys.stderr)
    return len(files) * rounds / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
