# SPDX-License-Identifier: Apache-2.0
"""How long several workers take for an archive, beside one: same outputs, ratio of wall times.

    scripts/with_ros python benchmarks/archive_workers.py [--ray local] [--files 8] [--workers 2]

The archive is parts of the demo clip, each a video of its own. Times are those of whole starts,
networks loaded: short archives make them look worse. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bmp_ros.archives.files import find_files
from bmp_ros.archives.pools import Pool, ProcessPool, RayPool
from bmp_ros.archives.run import run_archive
from bmp_ros.archives.work import DONE_NAME, Orders
from bmp_ros.machine import machine_line
from bmp_ros.offline.infer_files import Wanted
from bmp_ros.offline.video import VideoFile
from bmp_ros.synthetic.clip_file import open_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ray", metavar="ADDRESS", help="on a Ray cluster, such as local")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--frames", type=int, default=48, help="of each file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    orders = Orders({"preset": args.preset}, args.device, Wanted(json=True), track=True)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "in"
        archive.mkdir()
        write_videos(archive, args.files, args.frames)
        seconds, written = {}, {}
        for workers in (1, args.workers):
            output = Path(folder) / f"out{workers}"
            seconds[workers] = timed(archive, output, orders, workers, args.ray)
            written[workers] = {
                path.relative_to(output): path.read_bytes()
                for path in output.glob("*.mp4/*")
                if path.name != DONE_NAME
            }
            print(f"{workers} workers: {seconds[workers]:.1f} s, {len(written[workers])} outputs")
    same = written[1] == written[args.workers]
    print(f"outputs are {'the same' if same else 'NOT the same'}; {machine_line()}")
    print(f"{args.workers} workers take {seconds[args.workers] / seconds[1]:.2f} of the time of 1")
    if not same:
        raise SystemExit(1)


def write_videos(folder: Path, files: int, frames: int) -> None:
    """Parts of the demo clip, each from a later frame on; it begins again at its end."""
    images = [frame.image for frame in open_clip()]
    height, width = images[0].shape[:2]
    for number in range(files):
        video = VideoFile(folder / f"{number}.mp4", 12.0, width, height)
        for frame in range(frames):
            video.write(images[(number * frames + frame) % len(images)])
        video.close()


def timed(archive: Path, output: Path, orders: Orders, workers: int, ray: str | None) -> float:
    """Seconds of a start, from the workers' making to their end."""

    def make_pool(most: int) -> Pool:
        if ray is not None:
            return RayPool(orders, output, workers, ray)
        return ProcessPool(orders, output, workers)

    files, _ = find_files(archive, output)
    outcome = run_archive(files, orders, output, make_pool)
    if outcome.failed or outcome.deaths:
        raise SystemExit(f"{outcome.deaths} workers died, failed: {outcome.failed}")
    return outcome.seconds


if __name__ == "__main__":
    main()
