# SPDX-License-Identifier: Apache-2.0
"""The MMDetection adapter finds what MMDetection itself finds with the same weights."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from bmp_ros.loop.frame import Frame

pytestmark = pytest.mark.openmmlab
pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("mmcv.ops", reason="mmcv is installed without its operators")
torch = pytest.importorskip("torch", reason="torch is not installed")

from mmengine.registry import DefaultScope  # noqa: E402

from bmp_ros.engines.openmmlab.configs import load_config  # noqa: E402
from bmp_ros.engines.openmmlab.mmdet_detector import MMDetDetector  # noqa: E402
from bmp_ros.engines.protocols import Detector  # noqa: E402
from bmp_ros.engines.weights_errors import BadCheckpoint  # noqa: E402

INSTANCE_CONFIG = "rtmdet-ins_tiny_8xb32-300e_coco"
# A size whose masks MMDetection returns 496 rows high: the scales 640/497 and 240/186 differ.
HEIGHT, WIDTH = 497, 186
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def lively_weights(config, image, person):
    """Random weights that find something: statistics of the test image, scores spread out.

    The largest 60 logits of the class ``person`` end up above 0, so more than 20 boxes score
    distinctly in (0.3, 0.95), which the test asserts.
    """
    torch.manual_seed(3)
    detector = MMDetDetector(config, None)
    model = detector.model
    padded = np.full((640, 640, 3), 114, np.uint8)
    padded[:, :240] = cv2.resize(image, (240, 640))
    inputs = (torch.from_numpy(padded).permute(2, 0, 1)[None].float() - 114) / 57
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(inputs, mode="tensor")
    model.eval()
    with torch.no_grad():
        logits = model(inputs, mode="tensor")[0]
        values = torch.cat([level[0, person].flatten() for level in logits])
        scale = 0.5 / values.std()
        shift = -(values * scale).topk(60).values[-1]
        for layer in model.bbox_head.rtm_cls:
            layer.weight.mul_(scale)
            layer.bias.mul_(scale).add_(shift)
    return model.state_dict()


def resized_head(config, classes):
    settings = load_config(config, "mmdet")
    settings.model.bbox_head.num_classes = classes
    return settings


@pytest.fixture(scope="module", params=[("person",), ("car", "person"), None], ids=str)
def checkpoint(request, image, tmp_path_factory):
    """(path, class names) of RTMDet-Ins-tiny weights with 1, 2 and 80 classes."""
    names = request.param
    settings = resized_head(INSTANCE_CONFIG, len(names) if names else 80)
    weights = lively_weights(settings, image, names.index("person") if names else 0)
    path = tmp_path_factory.mktemp("weights") / "rtmdet-ins-tiny.pth"
    meta = {"dataset_meta": {"classes": names}} if names else {}
    extra = {"data_preprocessor.mean": torch.zeros(3, 1, 1)}
    torch.save({"state_dict": {**weights, **extra}, "meta": meta}, path)
    return path, names


def reference(path, names, image):
    """What MMDetection's own inference function finds: boxes, scores, masks of people."""
    from mmdet.apis import inference_detector, init_detector

    settings = resized_head(INSTANCE_CONFIG, len(names) if names else 80)
    settings.model.test_cfg.score_thr = THRESHOLD
    found = inference_detector(init_detector(settings, str(path), device="cpu"), image)
    found = found.pred_instances
    boxes, scores, masks = (values.numpy() for values in (found.bboxes, found.scores, found.masks))
    boxes = boxes.clip(0, np.tile([WIDTH, HEIGHT], 2))  # MMDetection's reach into the padding
    people = found.labels.numpy() == (names.index("person") if names else 0)
    people &= (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return boxes[people], scores[people], masks[people]


@pytest.mark.filterwarnings("ignore:dataset_meta or class names:UserWarning")
def test_equals_mmdetections_own_inference(checkpoint, image):
    path, names = checkpoint
    with DefaultScope.overwrite_default_scope("mmdet"):
        boxes, scores, masks = reference(path, names, image)
    distinct = np.unique(scores[(scores > THRESHOLD) & (scores < 0.95)].round(4))
    assert len(distinct) >= 20 and (masks.sum((1, 2)) > 0).sum() >= 10

    detector = MMDetDetector(INSTANCE_CONFIG, path)
    assert isinstance(detector, Detector)
    found = detector.detect(Frame(image), score_threshold=THRESHOLD)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    rows = np.array([11, 2, 5])
    some = found.masks(rows)
    assert (some.shape, some.dtype) == ((3, HEIGHT, WIDTH), np.bool_)
    np.testing.assert_array_equal(some[:, : masks.shape[1]], masks[rows])


def test_masks_that_mmdetection_returns_too_small_are_completed(checkpoint, image):
    path, names = checkpoint
    with DefaultScope.overwrite_default_scope("mmdet"):
        masks = reference(path, names, image)[2]
    assert masks.shape[1] == HEIGHT - 1, "choose an image size that shows the fault"
    found = MMDetDetector(INSTANCE_CONFIG, path).detect(Frame(image), score_threshold=THRESHOLD)
    completed = found.masks(np.arange(len(found.boxes)))
    assert completed[:, -1].any()
    np.testing.assert_array_equal(completed[:, -1], completed[:, -2])


def test_threshold_is_live_and_reaches_below_the_configs_own(checkpoint, image):
    detector = MMDetDetector(INSTANCE_CONFIG, checkpoint[0])
    found = {
        threshold: detector.detect(Frame(image), score_threshold=threshold)
        for threshold in (0.6, 0.01, 0.6, 1.0)
    }
    assert found[0.01].scores.min() < 0.05  # the config says 0.05
    assert found[0.6].scores.min() > 0.6
    assert 0 < len(found[0.6].scores) < len(found[0.01].scores)
    nobody = found[1.0]
    assert (nobody.boxes.shape, nobody.scores.shape) == ((0, 4), (0,))
    assert nobody.masks(np.zeros(0, int)).shape == (0, HEIGHT, WIDTH)


def test_boxes_are_inside_the_image(checkpoint, image):
    boxes = (
        MMDetDetector(INSTANCE_CONFIG, checkpoint[0])
        .detect(Frame(image), score_threshold=0.01)
        .boxes
    )
    assert boxes.dtype == np.float32
    assert (boxes >= 0).all() and (boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()


def test_a_detector_without_masks(image):
    weights = lively_weights("rtmdet_tiny_8xb32-300e_coco", image, 0)
    detector = MMDetDetector("rtmdet_tiny_8xb32-300e_coco", None)
    detector.model.load_state_dict(weights)
    found = detector.detect(Frame(image), score_threshold=THRESHOLD)
    assert len(found.boxes) >= 20
    assert found.masks is None


def test_a_two_stage_detector_with_masks(image):
    settings = load_config("mask-rcnn_r50_fpn_1x_coco", "mmdet")
    for step in settings.test_dataloader.dataset.pipeline:
        if step["type"] == "Resize":
            step["scale"] = (320, 320)
    torch.manual_seed(1)
    detector = MMDetDetector(settings, None)
    found = detector.detect(Frame(image), score_threshold=0.005)
    assert len(found.boxes) > 0
    assert found.scores.max() < 0.05  # random softmax over 81 classes, below the config's limit
    masks = found.masks(np.array([0]))
    assert (masks.shape, masks.dtype) == ((1, HEIGHT, WIDTH), np.bool_)


def test_without_a_class_person_the_first_is_taken_and_said(image, tmp_path, caplog):
    settings = resized_head(INSTANCE_CONFIG, 2)
    path = tmp_path / "other.pth"
    meta = {"dataset_meta": {"classes": ("pedestrian", "rider")}}
    torch.save({"state_dict": lively_weights(settings, image, 0), "meta": meta}, path)
    detector = MMDetDetector(INSTANCE_CONFIG, path)
    assert "class 0 (pedestrian)" in caplog.text
    assert len(detector.detect(Frame(image), score_threshold=THRESHOLD).boxes) >= 20


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    path = tmp_path / "wrong.pth"
    torch.save({"state_dict": {"backbone.stem.0.conv.weight": torch.zeros(3)}, "meta": {}}, path)
    with pytest.raises(
        BadCheckpoint, match=r"wrong\.pth do not fit this config[\s\S]*Missing key"
    ):
        MMDetDetector(INSTANCE_CONFIG, path)


def test_missing_weights_are_an_error_that_names_the_file(tmp_path):
    with pytest.raises(BadCheckpoint, match="no file .*absent.pth"):
        MMDetDetector(INSTANCE_CONFIG, tmp_path / "absent.pth")


def test_leaves_no_trace(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = DefaultScope.get_current_instance()
    detector = MMDetDetector("rtmdet_tiny_8xb32-300e_coco", None)
    detector.detect(Frame(np.zeros((64, 48, 3), np.uint8)), score_threshold=0.5)
    assert DefaultScope.get_current_instance() is before
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_importing_the_adapters_imports_no_openmmlab():
    code = (
        "import sys, bmp_ros.engines.openmmlab.mmdet_detector, "
        "bmp_ros.engines.openmmlab.mmpose_estimator\n"
        "print({'mmengine', 'mmcv', 'mmdet', 'mmpose', 'mmpretrain'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
