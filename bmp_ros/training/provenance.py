# SPDX-License-Identifier: Apache-2.0
"""Writes into exported networks which COCO images they were trained on.

``python -m bmp_ros.training.provenance out/detector/coco_ids.json … --files models/tiny/*.onnx``

`bmp evaluate` leaves these images out: a score on images that were learned says nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bmp_ros.evaluation.seen_images import COCO_IDS_KEY


def write_coco_ids(file: Path, coco_ids: Iterable[int]) -> None:
    """Replace the list of COCO ids in the metadata of an ONNX file; nothing else changes."""
    import onnx

    model = onnx.load(str(file))
    others = [(item.key, item.value) for item in model.metadata_props if item.key != COCO_IDS_KEY]
    del model.metadata_props[:]
    ids = json.dumps(sorted(set(coco_ids)), separators=(",", ":"))
    for key, value in (*others, (COCO_IDS_KEY, ids)):
        model.metadata_props.add(key=key, value=value)
    part = file.with_suffix(".part")
    onnx.save(model, str(part))
    part.replace(file)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bmp_ros.training.provenance", description=__doc__.split("\n")[0]
    )
    parser.add_argument("ids", type=Path, nargs="+", help="coco_ids.json of every training")
    parser.add_argument("--files", type=Path, nargs="+", required=True, help="ONNX files")
    args = parser.parse_args(arguments)
    try:
        ids: set[int] = set()
        for file in args.ids:
            ids |= set(json.loads(file.read_text(encoding="utf-8")))
        for file in args.files:
            write_coco_ids(file, ids)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(ids)} COCO ids in {len(args.files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
