# SPDX-License-Identifier: Apache-2.0
"""The MMDetection adapter finds what MMDetection itself finds with the same weights."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from bmp_ros.loop.frame import Frame

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("mmcv.ops", reason="mmcv is installed without its operators")
torch = pytest.importorskip("torch", reason="torch is not installed")

from mmengine.registry import DefaultScope  # noqa: E402

from bmp_ros.engines.openmmlab.configs import load_config  # noqa: E402
from bmp_ros.engines.openmmlab.mmdet_detector import MMDetDetector  # noqa: E402
from bmp_ros.loop.protocols import Detector  # noqa: E402
from bmp_ros.weights.errors import BadCheckpoint  # noqa: E402

INSTANCE_CONFIG = "rtmdet-ins_tiny_8xb32-300e_coco"
SIDE = 320  # of the network's input, half of the published side, for speed
# A size whose masks MMDetection returns 400 rows high: the scales 320/401 and 200/250 differ.
HEIGHT, WIDTH = 401, 250
THRESHOLD = 0.3

pytestmark = [
    pytest.mark.openmmlab,
    # MMDetection's own calls of torch, seen with newer versions of it.
    pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.autocast:FutureWarning"),
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
]


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def small_config(name, classes=80):
    """A shipped config with a smaller input, so many classes and room for many boxes."""
    settings = load_config(name, "mmdet")
    settings.model.bbox_head.num_classes = classes
    settings.model.test_cfg.max_per_img = 1000
    for step in settings.test_dataloader.dataset.pipeline:
        if step["type"] == "Resize":
            step["scale"] = (SIDE, SIDE)
        if step["type"] == "Pad":
            step["size"] = (SIDE, SIDE)
    return settings


def lively_weights(settings, image, person):
    """Random weights that find people: statistics of the test image, scores spread out.

    The largest 60 logits of the class ``person`` end up above 0, those of other classes far
    below. Whether more than 20 boxes score distinctly in (0.3, 0.95) is for the test to assert.
    """
    torch.manual_seed(3)
    model = MMDetDetector(settings, None).model
    padded = np.full((SIDE, SIDE, 3), 114, np.uint8)
    shape = (round(WIDTH * SIDE / HEIGHT), SIDE)
    padded[:, : shape[0]] = cv2.resize(image, shape)
    inputs = (torch.from_numpy(padded).permute(2, 0, 1)[None].float() - 114) / 57
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(inputs, mode="tensor")
        logits = model.eval()(inputs, mode="tensor")[0]
        values = torch.cat([level[0, person].flatten() for level in logits])
        scale = 0.5 / values.std()
        shift = -(values * scale).topk(60).values[-1]
        for layer in model.bbox_head.rtm_cls:
            layer.weight.mul_(scale)
            layer.bias.mul_(scale).sub_(20)
            layer.bias[person] += 20 + shift
    return model.state_dict()


def save(path, weights, names):
    meta = {"dataset_meta": {"classes": names}} if names else {}
    extra = {"data_preprocessor.mean": torch.zeros(3, 1, 1)}
    torch.save({"state_dict": {**weights, **extra}, "meta": meta}, path)
    return path


@pytest.fixture(scope="module")
def instance_weights(image, tmp_path_factory):
    """Path of RTMDet-Ins-tiny weights with COCO's 80 classes."""
    weights = lively_weights(small_config(INSTANCE_CONFIG), image, 0)
    return save(tmp_path_factory.mktemp("weights") / "rtmdet-ins-tiny.pth", weights, None)


def reference(settings, path, person, image):
    """What MMDetection's own inference function finds: boxes, scores, masks of people."""
    from mmdet.apis import inference_detector, init_detector

    settings.model.test_cfg.score_thr = THRESHOLD
    with DefaultScope.overwrite_default_scope("mmdet"):
        found = inference_detector(init_detector(settings, str(path), device="cpu"), image)
    found = found.pred_instances
    boxes, scores, masks = (values.numpy() for values in (found.bboxes, found.scores, found.masks))
    boxes = boxes.clip(0, np.tile([WIDTH, HEIGHT], 2))  # MMDetection's reach into the padding
    people = (found.labels.numpy() == person) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return boxes[people], scores[people], masks[people]


@pytest.mark.filterwarnings("ignore:dataset_meta or class names:UserWarning")
@pytest.mark.parametrize("names", [("person",), ("car", "person"), None], ids=str)
def test_equals_mmdetections_own_inference(names, image, tmp_path):
    person = names.index("person") if names else 0
    settings = small_config(INSTANCE_CONFIG, len(names) if names else 80)
    path = save(tmp_path / "weights.pth", lively_weights(settings, image, person), names)
    boxes, scores, masks = reference(settings, path, person, image)
    distinct = np.unique(scores[(scores > THRESHOLD) & (scores < 0.95)].round(4))
    assert len(distinct) >= 20 and masks.any(axis=(1, 2)).sum() >= 10

    detector = MMDetDetector(small_config(INSTANCE_CONFIG), path)  # 80 classes in the config
    assert isinstance(detector, Detector)
    found = detector.detect(Frame(image), score_threshold=THRESHOLD)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    rows = np.array([11, 2, 5])
    some = found.masks(rows)
    assert (some.shape, some.dtype) == ((3, HEIGHT, WIDTH), np.bool_)
    np.testing.assert_array_equal(some[:, : masks.shape[1]], masks[rows])


@pytest.mark.filterwarnings("ignore:dataset_meta or class names:UserWarning")
def test_masks_that_mmdetection_returns_too_small_are_completed(instance_weights, image):
    settings = small_config(INSTANCE_CONFIG)
    masks = reference(settings, instance_weights, 0, image)[2]
    assert masks.shape[1] == HEIGHT - 1, "choose an image size that shows the fault"
    found = MMDetDetector(settings, instance_weights).detect(
        Frame(image), score_threshold=THRESHOLD
    )
    completed = found.masks(np.arange(len(found.boxes)))
    assert completed[:, -1].any()
    np.testing.assert_array_equal(completed[:, -1], completed[:, -2])


def test_threshold_is_live_and_reaches_below_the_configs_own(instance_weights, image):
    settings = small_config(INSTANCE_CONFIG)
    settings.model.test_cfg.score_thr = 0.9
    detector = MMDetDetector(settings, instance_weights)
    many, few, nobody = (
        detector.detect(Frame(image), score_threshold=limit) for limit in (0.3, 0.55, 1.0)
    )
    assert 0.3 < many.scores.min() < 0.55
    assert few.scores.min() > 0.55
    assert 0 < len(few.scores) < len(many.scores)
    assert many.boxes.dtype == np.float32
    assert (many.boxes >= 0).all() and (many.boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    assert (many.boxes[:, :2] < many.boxes[:, 2:]).all()
    assert (nobody.boxes.shape, nobody.scores.shape) == ((0, 4), (0,))
    assert nobody.masks(np.zeros(0, int)).shape == (0, HEIGHT, WIDTH)


def test_a_detector_without_masks(image, tmp_path):
    settings = small_config("rtmdet_tiny_8xb32-300e_coco")
    path = save(tmp_path / "weights.pth", lively_weights(settings, image, 0), None)
    found = MMDetDetector(settings, path).detect(Frame(image), score_threshold=THRESHOLD)
    assert len(found.boxes) >= 20
    assert found.masks is None


def test_a_two_stage_detector_with_masks(image):
    settings = load_config("mask-rcnn_r50_fpn_1x_coco", "mmdet")
    for step in settings.test_dataloader.dataset.pipeline:
        if step["type"] == "Resize":
            step["scale"] = (SIDE, SIDE)
    torch.manual_seed(1)
    detector = MMDetDetector(settings, None)
    found = detector.detect(Frame(image), score_threshold=0.005)
    assert len(found.boxes) > 0
    assert found.scores.max() < 0.05  # random softmax over 81 classes, below the config's limit
    masks = found.masks(np.array([0]))
    assert (masks.shape, masks.dtype) == ((1, HEIGHT, WIDTH), np.bool_)


def test_without_a_class_person_the_first_is_taken_and_said(image, tmp_path, caplog):
    settings = small_config(INSTANCE_CONFIG, classes=2)
    weights = lively_weights(settings, image, 0)
    caplog.clear()
    path = save(tmp_path / "weights.pth", weights, ("pedestrian", "rider"))
    detector = MMDetDetector(settings, path)
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
    with pytest.raises(BadCheckpoint, match=r"absent\.pth: check the path"):
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
