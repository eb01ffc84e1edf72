# SPDX-License-Identifier: Apache-2.0
"""Everything that recipes need as a few files of limited size, for a machine that is lent for
minutes; and the results of a training in the same way, for the way back.

``python -m bmp_ros.training.pack data RECIPE.yaml … --root DIR --output DIR/packed``
``python -m bmp_ros.training.pack files out/detector --output out/packed --largest 16``
``python -m bmp_ros.training.pack unpack DIR/packed --output DIR2``

Files are kept byte by byte. ``manifest.json`` says which bytes of which part are whose, with a
hash of every file: a part that is missing, cut or changed is named, and no file is half restored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import posixpath
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

LARGEST_PART = 30
"""MiB."""
MANIFEST = "manifest.json"
CACHE = "cache"
"""Folder, in the pack, of what networks saw in the images; ``--cache`` where it is unpacked."""
_FORMAT = 1
_MIB = 1 << 20


def pack(files: Mapping[str, Path], output: Path, largest: float = LARGEST_PART) -> list[Path]:
    """Write ``files`` (name in the pack -> file) as parts of at most ``largest`` MiB; return them.

    Raises ValueError for a limit below one byte, and where ``output`` holds a pack already;
    FileNotFoundError for a file that is not there.
    """
    limit = int(largest * _MIB)
    if limit < 1:
        raise ValueError(f"the largest part is {largest} MiB, it must be at least one byte")
    if (output / MANIFEST).exists():
        raise ValueError(f"{output} holds a pack already; delete it or name another --output")
    output.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    entries: list[dict[str, Any]] = []
    sink, room = None, 0
    try:
        for name, file in sorted(files.items()):
            pieces = []
            digest = hashlib.sha256()
            with file.open("rb") as source:
                while True:
                    if not room:
                        if sink is not None:
                            sink.close()
                        parts.append(output / f"part_{len(parts):03d}.bin")
                        sink, room = parts[-1].open("wb"), limit
                    assert sink is not None
                    piece = source.read(room)
                    if not piece:
                        break
                    pieces.append([len(parts) - 1, sink.tell(), len(piece)])
                    sink.write(piece)
                    digest.update(piece)
                    room -= len(piece)
            entries.append({"name": name, "sha256": digest.hexdigest(), "pieces": pieces})
    finally:
        if sink is not None:
            sink.close()
    manifest = {"format": _FORMAT, "parts": [part.stat().st_size for part in parts]}
    text = json.dumps({**manifest, "files": entries})
    (output / MANIFEST).write_text(text, encoding="utf-8")
    return parts


def unpack(folder: Path, output: Path) -> list[Path]:
    """Restore the files of a pack below ``output``; those that are there already are replaced.

    Raises ValueError naming the part or file that is missing, damaged or would lie elsewhere.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise ValueError(f"{folder} is no pack: {MANIFEST} is not there")
    manifest = json.loads(file.read_text(encoding="utf-8"))
    if manifest.get("format") != _FORMAT:
        raise ValueError(f"{file} has format {manifest.get('format')}, known is {_FORMAT}")
    parts = [folder / f"part_{number:03d}.bin" for number in range(len(manifest["parts"]))]
    for part, size in zip(parts, manifest["parts"], strict=True):
        found = part.stat().st_size if part.is_file() else 0
        if found != size:
            raise ValueError(f"{part} has {found} bytes instead of {size}; copy it again")
    for entry in manifest["files"]:
        name = PurePosixPath(entry["name"])
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"{file} names {entry['name']!r}, which is not below {output}")
    restored = []
    for entry in manifest["files"]:
        target = output / entry["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_name(target.name + ".part")
        digest = hashlib.sha256()
        with half.open("wb") as sink:
            for number, first, length in entry["pieces"]:
                with parts[number].open("rb") as source:
                    source.seek(first)
                    piece = source.read(length)
                digest.update(piece)
                sink.write(piece)
        if digest.hexdigest() != entry["sha256"]:
            half.unlink()
            raise ValueError(f"{entry['name']} is damaged; copy the parts of {folder} again")
        half.replace(target)
        restored.append(target)
    return restored


def files_of_recipes(recipes: Iterable[Path], root: Path, cache: Path) -> dict[str, Path]:
    """What the recipes read below ``root``: annotations, images, first weights, what networks
    saw in the images; and the recipes and their lists of held-out images, under ``recipes/``.

    Raises what `read_recipe` and `CocoImages` raise for a recipe that cannot be used.
    """
    import yaml

    from bmp_ros.training.coco_images import find_image
    from bmp_ros.training.recipe import open_folders, read_recipe

    files: dict[str, Path] = {}
    for file in recipes:
        recipe = read_recipe(file)
        files[f"recipes/{file.name}"] = file
        held_out = yaml.safe_load(file.read_text(encoding="utf-8")).get("held_out")
        if isinstance(held_out, str):
            name = PurePosixPath("recipes") / Path(held_out).name
            files[str(name)] = file.parent / held_out
        if recipe.start_from is not None:
            start = root / recipe.start_from
            for part in sorted(start.iterdir()) if start.is_dir() else [start]:
                if part.suffix in (".onnx", ".pth"):
                    files[part.relative_to(root).as_posix()] = part
        folders, kept = open_folders(recipe, root, cache)
        for folder in (*folders, *kept):
            if folder.seen_file.is_file():
                files[f"{CACHE}/{folder.seen_file.name}"] = folder.seen_file
        for source in recipe.data:
            place = root / source.folder
            annotations = place / source.annotations
            files[posixpath.normpath(f"{source.folder}/{source.annotations}")] = annotations
            every = json.loads(annotations.read_bytes())["images"]
            same = [folder for folder in (*folders, *kept) if folder.file == annotations]
            used = set().union(*(folder.image_ids for folder in same))
            for image in every:
                if image["id"] in used:
                    found = find_image(place, image)
                    files[f"{source.folder}/{found.relative_to(place).as_posix()}"] = found
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.training.pack", description=__doc__.split("\n\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="pack what recipes need")
    data.add_argument("recipes", type=Path, nargs="+")
    data.add_argument("--root", type=Path, default=Path(), help="see bmp train")
    data.add_argument("--cache", type=Path, default=Path("~/.cache/bmp_ros/training"))
    files = commands.add_parser("files", help="pack a folder, such as that of a training")
    files.add_argument("folder", type=Path)
    back = commands.add_parser("unpack", help="restore what was packed")
    back.add_argument("folder", type=Path)
    for command in (data, files, back):
        command.add_argument("--output", type=Path, required=True)
    for command in (data, files):
        command.add_argument(
            "--largest", type=float, default=LARGEST_PART, help="MiB of a part (%(default)s)"
        )
    args = parser.parse_args(arguments)
    try:
        if args.command == "unpack":
            restored = unpack(args.folder, args.output)
            print(f"{len(restored)} files in {args.output}")
            return 0
        if args.command == "data":
            chosen = files_of_recipes(args.recipes, args.root, args.cache.expanduser())
        else:
            found = [file for file in sorted(args.folder.rglob("*")) if file.is_file()]
            chosen = {file.relative_to(args.folder).as_posix(): file for file in found}
        parts = pack(chosen, args.output, args.largest)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(chosen)} files in {len(parts)} parts, {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
