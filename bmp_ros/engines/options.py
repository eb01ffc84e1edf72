# SPDX-License-Identifier: Apache-2.0
"""Options that several engines have: one text and one range each."""

from __future__ import annotations

from typing import Any

from bmp_ros.fields import bool_field, number_field, str_field


def weights() -> Any:
    return str_field(text="name in models/zoo.yaml, or the path of a checkpoint")


def nms_iou() -> Any:
    return number_field(0.6, low=0.0, high=1.0, text="IoU of the network's own box NMS")


def background_factor() -> Any:
    text = (
        "factor of the pixels outside of a person's mask in what the network sees; null: the "
        "network was not trained on masks"
    )
    return number_field(None, low=0.0, high=1.0, optional=True, text=text)


def flip_test() -> Any:
    return bool_field(True, text="average with the mirrored crop: better, twice the work")


def extra_keypoints() -> Any:
    return bool_field(False, text="keep the keypoints beyond COCO's 17 that the network has")


def max_hole_area(default: int) -> Any:
    text = "fill holes up to this area in cells of the mask logits; 0: off"
    return number_field(default, low=0, high=65536, integer=True, text=text)


def max_sprinkle_area(default: int) -> Any:
    text = "remove separate pieces up to this area in cells of the mask logits; 0: off"
    return number_field(default, low=0, high=65536, integer=True, text=text)


def threads() -> Any:
    text = "CPU threads of this network; null: as many as there are cores to use"
    return number_field(None, low=1, high=1024, integer=True, optional=True, text=text)


def tensorrt() -> Any:
    text = "run through TensorRT, where onnxruntime has it and the device is a GPU"
    return bool_field(False, text=text)
