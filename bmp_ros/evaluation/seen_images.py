# SPDX-License-Identifier: Apache-2.0
"""COCO images that a network was trained on: its file names them, no score counts them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

COCO_IDS_KEY = "bmp_ros_coco_ids"
"""In the metadata of an ONNX file: a JSON list of the COCO ids of its training images."""
_COCO_NAME = re.compile(r"(?:COCO_(?:train|val)2014_)?(\d{12})\.jpe?g", re.IGNORECASE)


def coco_id_of(entry: Mapping[str, Any]) -> int | None:
    """The COCO id of an entry under ``images``: its ``coco_id``, or the number that is its file's
    name, as COCO names files; None for other images."""
    if entry.get("coco_id") is not None:
        return int(entry["coco_id"])
    match = _COCO_NAME.fullmatch(Path(str(entry.get("file_name", ""))).name)
    return int(match.group(1)) if match else None


def seen_coco_ids(files: Iterable[Path]) -> frozenset[int]:
    """The COCO ids that the ONNX files among ``files`` name; others name none."""
    import onnxruntime

    ids: set[int] = set()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    for file in files:
        if file.suffix != ".onnx":
            continue
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        text = session.get_modelmeta().custom_metadata_map.get(COCO_IDS_KEY)
        ids.update(json.loads(text) if text else ())
    return frozenset(ids)
