# SPDX-License-Identifier: Apache-2.0
"""The decoders of files and settings that benchmarks/fuzz.py feeds; see fuzz_messages.py."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fuzz_messages import HEIGHT, ROOT, WIDTH, Target, encoded_pictures, picture
from fuzz_mutations import ODD, altered, mutated, with_checksums


class OfFiles(Target):
    """Files in a folder of their own. suffix: of their names."""

    suffix = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bmp-fuzz-files-"))

    def path(self, case: bytes, suffix: str = "") -> Path:
        path = self.folder / f"case{suffix or self.suffix}"
        path.write_bytes(case)
        return path


class Checkpoint(OfFiles):
    """Weights: torch's archive and old format, a pickled network, safetensors."""

    def __init__(self) -> None:
        super().__init__()
        import torch
        from safetensors.torch import save

        from bmp_ros.weights.errors import WeightsError

        self.allowed = (WeightsError,)
        weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2).half()}
        content = {"state_dict": weights, "meta": {"epoch": 3, "names": ["person"]}}
        new, old = io.BytesIO(), io.BytesIO()
        torch.save(content, new)
        torch.save(content, old, _use_new_zipfile_serialization=False)
        fixture = ROOT / "test" / "data" / "seed_networks"
        yolo = (fixture / "yolov5_tiny_checkpoint_fixture.pt").read_bytes()
        self.seeds = [new.getvalue(), old.getvalue(), yolo]
        self.safetensors = save(weights)

    def make(self, dice: random.Random) -> Any:
        if dice.random() < 0.2:
            return mutated(self.safetensors, dice), ".safetensors"
        seed = dice.choices(self.seeds, (6, 6, 1))[0]
        if seed.startswith(b"PK") and dice.random() < 0.6:
            return _with_altered_entry(seed, dice), ".pth"
        return mutated(seed, dice, dice.choice(self.seeds)), ".pth"

    def feed(self, case: Any) -> None:
        from bmp_ros.weights.checkpoint import load_checkpoint

        for tensor in load_checkpoint(self.path(*case)).state_dict.values():
            float(tensor.reshape(-1)[:1].sum())
        for left in self.folder.iterdir():
            left.unlink()


def _with_altered_entry(archive: bytes, dice: random.Random) -> bytes:
    """The archive with one entry altered, lost, or compressed, checksums as they should be."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = dice.choice([name for name in names if name.endswith("pkl")] * 3 + names)
        how = dice.randrange(8)
        for name in names:
            content = old.read(name)
            kind = zipfile.ZIP_STORED
            if name == chosen:
                if how == 0:
                    continue
                if how == 1:
                    kind = zipfile.ZIP_DEFLATED
                if how > 1:
                    content = mutated(content, dice)
            new.writestr(name, content, kind)
    return out.getvalue()


class PresetFile(OfFiles):
    """The presets that come with the package, as YAML and as documents."""

    suffix = ".yaml"

    def __init__(self) -> None:
        super().__init__()
        import yaml

        from bmp_ros.fields import SettingsError

        self.allowed = (SettingsError,)
        files = sorted((ROOT / "config" / "presets").glob("*.yaml"))
        self.seeds = [file.read_bytes() for file in files]
        self.documents = [yaml.safe_load(seed) for seed in self.seeds]

    def make(self, dice: random.Random) -> Any:
        import yaml

        if dice.random() < 0.5:
            return super().make(dice)
        document = altered(dice.choice(self.documents), dice)
        try:
            return yaml.safe_dump(document).encode("utf-8", "replace")
        except ValueError:  # a number with too many digits to be written
            return b"description: " + b"9" * 5000

    # The networks themselves are not loaded here.
    def feed(self, case: bytes) -> None:
        from bmp_ros.engines.presets import load_preset

        load_preset(self.path(case))


class Bag(OfFiles):
    """Bags with images, depth and a type that nobody knows, processed and written anew."""

    def __init__(self) -> None:
        super().__init__()
        sys.path[:0] = [str(ROOT / "test" / part) for part in ("bags", "loop")]
        from rosbags.rosbag2 import StoragePlugin
        from test_bag import loop, write_bag
        from test_depth_of_bag import DEPTH, depth_bag

        from bmp_ros.bags.process import BagError, Selection

        self.allowed = (BagError,)
        self.loop = loop  # made anew for each: scripted networks remember what they were asked
        with_depth = depth_bag(self.folder / "depth", images=2)
        plain = write_bag(self.folder / "sqlite", images=2, plugin=StoragePlugin.SQLITE3)
        jpegs = write_bag(self.folder / "jpegs", images=2, compressed=True)
        self.files = [next(bag.glob(f"*{suffix}")).read_bytes() for bag, suffix in (
            (with_depth, ".mcap"), (plain, ".db3"), (jpegs, ".mcap"))]  # fmt: skip
        self.selections = (
            Selection(), Selection("/camera/image", anonymise="bodies"),
            Selection("/camera/image", depth=DEPTH.depth, smooth=True),
        )  # fmt: skip

    def make(self, dice: random.Random) -> Any:
        number = dice.randrange(3)
        return (
            mutated(self.files[number], dice, self.files[dice.randrange(3)]),
            ".db3" if number == 1 else ".mcap",
            self.selections[dice.randrange(3)],
        )

    def feed(self, case: Any) -> None:
        from bmp_ros.bags.process import process_bag

        data, suffix, selection = case
        target = self.folder / "out"
        try:
            process_bag(self.loop(), self.path(data, suffix), target, selection)
        finally:
            shutil.rmtree(target, ignore_errors=True)
            left = [path for path in self.folder.iterdir() if path.name.startswith(".bmp")]
        assert not left, left


class PictureFile(OfFiles):
    """Image files of every format, some with an orientation."""

    def __init__(self) -> None:
        super().__init__()
        from bmp_ros.image_files import UnreadableImageError

        self.allowed = (UnreadableImageError,)
        self.seeds = encoded_pictures()
        tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
        exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
        self.seeds.append(self.seeds[0][:2] + exif + self.seeds[0][2:])

    def make(self, dice: random.Random) -> Any:
        data = super().make(dice)
        if data.startswith(b"\0\0\0\x0cjP") and dice.random() < 0.9:
            data = mutated(self.seeds[0], dice)  # a process for each JPEG 2000 takes its time
        if data.startswith(b"\x89PNG") and dice.random() < 0.7:
            data = with_checksums(data)
        return data

    def feed(self, case: bytes) -> None:
        from bmp_ros.image_files import read_image

        image = read_image(self.path(case, ".img"))
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


class VideoFile(OfFiles):
    """Short videos in the containers that OpenCV writes."""

    def __init__(self) -> None:
        super().__init__()
        from bmp_ros.offline.video import UnreadableVideoError

        self.allowed = (UnreadableVideoError,)
        self.files = []
        frame = cv2.resize(picture(), (96, 64))
        for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v")):
            path = self.folder / f"seed{suffix}"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (96, 64))
            for number in range(6):
                writer.write(np.roll(frame, 5 * number, axis=1))
            writer.release()
            self.files.append((path.read_bytes(), suffix))

    def make(self, dice: random.Random) -> Any:
        data, suffix = dice.choice(self.files)
        return mutated(data, dice, dice.choice(self.files)[0]), suffix

    def feed(self, case: Any) -> None:
        from bmp_ros.offline.video import VideoFrames

        frames = VideoFrames(self.path(*case))
        for image in frames:
            assert image.ndim == 3 and image.dtype == np.uint8
            if frames.read > 50:
                break
        frames.broken()


class BoxDocument(OfFiles):
    """Boxes of another program, as JSON."""

    suffix = ".json"

    def __init__(self) -> None:
        super().__init__()
        from bmp_ros.offline.box_file import BoxFileError

        self.allowed = (BoxFileError,)
        self.document = {
            "images": [
                {"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "v.mp4", "frame": 0}
            ],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [
                {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5,
                 "segmentation": [[1, 1, 5, 1, 5, 5]]},
                {"image_id": 2, "bbox": [1, 2, 3, 4],
                 "segmentation": {"size": [24, 32], "counts": [5, 10, 753]}},
                {"file_name": "a.jpg", "bbox": [1, 2, 3, 4]},
            ],
        }  # fmt: skip

    def make(self, dice: random.Random) -> Any:
        document = altered(self.document, dice)
        try:
            text = json.dumps(document).encode("utf-8", "replace")
        except ValueError:
            text = b"[" + b"9" * 5000 + b"]"
        return mutated(text, dice) if dice.random() < 0.4 else text

    def feed(self, case: bytes) -> None:
        from bmp_ros.offline.box_file import BoxFile

        boxes = BoxFile(self.path(case))
        boxes.of(Path("a.jpg"), HEIGHT, WIDTH)
        boxes.of(Path("v.mp4"), HEIGHT, WIDTH, 0)
        boxes.not_asked_for()


class Zones(Target):
    """Zones as they stand in parameters and files."""

    seeds = [  # noqa: RUF012
        b"door: 0.1 0.5; 0.4 0.5; 0.4 1.0; 0.1 1.0", b"desk in map: 1.0 0.0; 3.0 0.0; 3.0 2.0"
    ]  # fmt: skip

    def __init__(self) -> None:
        from bmp_ros.interaction.zones import ZoneError

        self.allowed = (ZoneError,)

    def make(self, dice: random.Random) -> Any:
        texts = [mutated(dice.choice(self.seeds), dice) for _ in range(dice.choice((1, 2, 200)))]
        return [text.decode("utf-8", "replace") for text in texts] + [
            str(odd)[:9999] for odd in dice.sample(ODD[:9], dice.choice((0, 0, 1)))
        ]

    def feed(self, case: Any) -> None:
        from bmp_ros.interaction.zones import parse_zones

        parse_zones(case)


OF_FILES: dict[str, Callable[[], Target]] = {
    "checkpoint": Checkpoint, "preset": PresetFile, "bag": Bag, "picture": PictureFile,
    "boxes": BoxDocument, "zones": Zones, "video": VideoFile,
}  # fmt: skip
