# SPDX-License-Identifier: Apache-2.0
"""The MMPose adapter: MaskPose's golden vectors, and MMPose's own inference on other networks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bmp_ros.loop.frame import Frame
from bmp_ros.loop.skeletons import COCO_17, MULTI_21, MULTI_23

pytestmark = pytest.mark.openmmlab
pytest.importorskip("mmpose", reason="MMPose is not installed")
pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
pytest.importorskip("mmcv.ops", reason="mmcv is installed without its operators")
torch = pytest.importorskip("torch", reason="torch is not installed")

from mmengine.registry import DefaultScope  # noqa: E402

from bmp_ros.engines.crops import background_weights, crop_geometry, warp_crops  # noqa: E402
from bmp_ros.engines.openmmlab.configs import load_config  # noqa: E402
from bmp_ros.engines.openmmlab.mmpose_estimator import MMPoseEstimator  # noqa: E402
from bmp_ros.engines.openmmlab.vit_configs import vit_config  # noqa: E402
from bmp_ros.loop.protocols import PoseEstimator  # noqa: E402
from bmp_ros.weights.errors import BadCheckpoint  # noqa: E402

GOLDEN = Path(__file__).parents[2] / "data" / "maskpose_tiny.npz"
BOXES = np.array([[20, 15, 120, 190], [90.5, 40, 150, 210], [-10, 100, 60, 260]], np.float32)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(11)
    noise = rng.integers(0, 256, (240, 180, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def save(tmp_path, state_dict, dataset_meta=None):
    path = tmp_path / "weights.pth"
    meta = {} if dataset_meta is None else {"dataset_meta": dataset_meta}
    torch.save({"state_dict": state_dict, "meta": meta}, path)
    return path


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def tiny_maskpose(golden, tmp_path_factory):
    config = vit_config(
        MULTI_23,
        embed_dims=48,
        num_layers=2,
        num_heads=4,
        feedforward_channels=96,
        deconv_channels=(32, 32),
    )
    mean, std = golden_normalization(golden)
    config["model"]["data_preprocessor"].update(mean=mean, std=std)
    weights = {k[3:]: torch.from_numpy(v) for k, v in golden.items() if k.startswith("sd/")}
    checkpoint = save(tmp_path_factory.mktemp("golden"), weights)
    return MMPoseEstimator(config, checkpoint, background_factor=golden_factor(golden))


def golden_factor(golden):
    return 1 - float(golden["background_alpha"])


def golden_normalization(golden):
    """Mean and standard deviation, RGB, of the golden network: random ones, like its weights.

    They are not in the file, but follow from its inputs: inside of the masks, away from the
    outline, these are (grey level - mean) / std. The fit must be exact.
    """
    geometry = crop_geometry(golden["boxes_xyxy"])
    weights = background_weights(golden_masks(golden), geometry, golden_factor(golden))
    inside = np.stack([cv2.erode(crop, np.ones((25, 25))) == 1 for crop in weights])
    levels = warp_crops(golden["image_bgr"], geometry)[..., ::-1][inside].astype(float)
    inputs = golden["net_inputs"].transpose(0, 2, 3, 1)[inside]
    fits = [np.polyfit(levels[:, c], inputs[:, c], 1) for c in range(3)]
    std = [float(1 / slope) for slope, _ in fits]
    mean = [float(-offset / slope) for slope, offset in fits]
    assert np.abs(inputs * std + mean - levels).max() < 1e-3
    return mean, std


def golden_masks(golden):
    width = golden["mask_shape"][2]
    return np.unpackbits(golden["masks"], axis=2)[:, :, :width].astype(bool)


def heatmaps(estimator, inputs):
    """Averages of the network's heatmaps and those of the mirrored input."""
    inputs = torch.as_tensor(inputs)
    with torch.no_grad():
        straight = estimator.model(inputs, None, mode="tensor")
        mirrored = estimator.model(inputs.flip(-1), None, mode="tensor").flip(-1)
    return ((straight + mirrored[:, estimator.skeleton.flip_indices]) / 2).numpy()


def well_conditioned(golden):
    """(N, K) bool: joints whose published sub-pixel step is at most one heatmap pixel.

    The steps of the others go anywhere: random heatmaps have no clear peaks.
    """
    maps = golden["heatmaps_flip_averaged"]
    people, joints, height, width = maps.shape
    y, x = np.divmod(maps.reshape(people, joints, -1).argmax(axis=2), width)
    geometry = crop_geometry(golden["boxes_xyxy"])
    located = (golden["keypoints"] - geometry.origin[:, None]) / geometry.extent[:, None]
    step = located * (width - 1, height - 1) - np.stack([x, y], axis=2)
    return np.abs(step).max(axis=2) <= 1


def test_golden_heatmaps(tiny_maskpose, golden):
    maps = heatmaps(tiny_maskpose, golden["net_inputs"])
    error = np.abs(maps - golden["heatmaps_flip_averaged"]).max()
    assert error <= 1e-4, f"largest difference {error:.2e}, limit 1e-4"


def test_golden_flip_indices(tiny_maskpose, golden):
    assert tiny_maskpose.skeleton is MULTI_23
    np.testing.assert_array_equal(MULTI_23.flip_indices, golden["flip_indices"])


def test_golden_keypoints_from_golden_inputs(tiny_maskpose, golden):
    straight = torch.from_numpy(golden["net_inputs"])
    inputs = iter([straight, straight.flip(-1)])
    hook = tiny_maskpose.model.backbone.register_forward_pre_hook(lambda *_: (next(inputs),))
    poses = tiny_maskpose.estimate(Frame(golden["image_bgr"]), golden["boxes_xyxy"], None)
    hook.remove()
    np.testing.assert_allclose(poses.scores, golden["keypoint_scores"], rtol=0, atol=1e-4)
    joints = well_conditioned(golden)
    assert joints.sum() == 28
    shift = np.linalg.norm(poses.keypoints - golden["keypoints"], axis=2)[joints]
    assert shift.max() <= 0.02, f"largest shift {shift.max():.4f} px, limit 0.02 px"


def test_golden_end_to_end_with_masks(tiny_maskpose, golden):
    """The published code erodes the masks by up to a pixel; a random network feels that.

    So one joint of the 28 may jump to another peak of its heatmap, the others stay.
    """
    frame, masks = Frame(golden["image_bgr"]), golden_masks(golden)
    poses = tiny_maskpose.estimate(frame, golden["boxes_xyxy"], masks)
    score_error = np.abs(poses.scores - golden["keypoint_scores"])
    assert score_error.max() <= 0.03, f"largest difference of scores {score_error.max():.4f}"
    shift = np.linalg.norm(poses.keypoints - golden["keypoints"], axis=2)
    shift = np.sort(shift[well_conditioned(golden)])
    assert shift[-2] <= 1.0, f"largest shifts {shift[-4:].round(2)} px"
    assert np.median(shift) <= 0.1, f"median shift {np.median(shift):.3f} px"
    without = tiny_maskpose.estimate(frame, golden["boxes_xyxy"], None)
    assert np.abs(without.scores - golden["keypoint_scores"]).max() > 0.05


def test_golden_inputs_except_at_the_masks_outline(tiny_maskpose, golden):
    seen = []
    hook = tiny_maskpose.model.backbone.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    masks = golden_masks(golden)
    tiny_maskpose.estimate(Frame(golden["image_bgr"]), golden["boxes_xyxy"], masks)
    hook.remove()
    std = np.array(golden_normalization(golden)[1])[:, None, None]
    grey_levels = np.abs((seen[0].numpy() - golden["net_inputs"]) * std).max(axis=1)
    differing = (grey_levels > 1.01).mean(axis=(1, 2))
    assert differing.max() <= 0.03, f"parts of the crops that differ: {differing}"


def test_a_person_without_mask_pixels_is_not_dimmed(tiny_maskpose, golden):
    frame, boxes = Frame(golden["image_bgr"]), golden["boxes_xyxy"]
    masks = golden_masks(golden)
    masks[1] = False
    some = tiny_maskpose.estimate(frame, boxes, masks)
    none = tiny_maskpose.estimate(frame, boxes, None)
    np.testing.assert_allclose(some.scores[1], none.scores[1], atol=1e-6)
    assert np.abs(some.scores[0] - none.scores[0]).max() > 1e-3


def reference(config, state_dict, image, boxes):
    """MMPose's own ``inference_topdown``: keypoints and scores in the network's order."""
    from mmpose.apis import inference_topdown, init_model

    with DefaultScope.overwrite_default_scope("mmpose"):
        model = init_model(config, None, device="cpu")
        model.load_state_dict(state_dict)
        model.test_cfg.pop("output_keypoint_indices", None)
        samples = inference_topdown(model, image, boxes)
    found = [sample.pred_instances for sample in samples]
    keypoints = np.concatenate([person.keypoints for person in found])
    return keypoints, np.concatenate([person.keypoint_scores for person in found])


def assert_equals_reference(estimator, config, image, channels):
    keypoints, scores = reference(config, estimator.model.state_dict(), image, BOXES)
    poses = estimator.estimate(Frame(image), BOXES, None)
    assert (poses.keypoints.dtype, poses.scores.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(poses.scores, scores[:, channels], atol=1e-5)
    np.testing.assert_allclose(poses.keypoints, keypoints[:, channels], atol=1e-2)
    assert np.ptp(poses.scores) > 0
    return poses


@pytest.mark.parametrize("joints", [MULTI_21, MULTI_23], ids=len)
@pytest.mark.parametrize("size", ["s", "b"])
def test_vit_with_random_weights_equals_mmposes_own_inference(size, joints, image):
    torch.manual_seed(len(joints))
    name = f"vit_{size}_{len(joints)}"
    estimator = MMPoseEstimator(name, None, background_factor=0.75)
    assert isinstance(estimator, PoseEstimator)
    assert estimator.skeleton is joints
    config = load_config(name, "mmpose")
    poses = assert_equals_reference(estimator, config, image, slice(None))
    assert poses.visibility is None


@pytest.mark.parametrize(
    "name",
    [
        "td-hm_hrnet-w32_8xb64-210e_coco-256x192",
        "td-hm_hrnet-w48_8xb32-210e_coco-256x192",
        "simcc_res50_8xb64-210e_coco-256x192",
        "td-reg_res50_rle-8xb64-210e_coco-256x192",
    ],
)
def test_presets_networks_equal_mmposes_own_inference(name, image):
    torch.manual_seed(2)
    estimator = MMPoseEstimator(name, None)
    assert estimator.skeleton is COCO_17
    assert_equals_reference(estimator, load_config(name, "mmpose"), image, slice(None))


def test_a_set_with_more_joints_starts_with_cocos(image):
    name = "rtmpose-t_8xb1024-700e_body8-halpe26-256x192"
    torch.manual_seed(4)
    estimator = MMPoseEstimator(name, None)
    names = estimator.skeleton.names
    assert names[:17] == COCO_17.names and len(names) == 26
    assert {"head", "neck", "hip", "left_big_toe", "right_heel"} < set(names)
    left, right = names.index("left_heel"), names.index("right_heel")
    assert estimator.skeleton.flip_indices[left] == right
    assert_equals_reference(estimator, load_config(name, "mmpose"), image, slice(None))


def test_a_network_that_would_select_its_outputs_gives_all_in_our_order(image):
    """AIC + COCO: 19 channels, of which the config puts out COCO's in their order."""
    name = "td-hm_hrnet-w32_8xb64-210e_coco-aic-256x192-combine"
    settings = load_config(name, "mmpose")
    selected = list(settings.model.test_cfg.output_keypoint_indices)
    torch.manual_seed(5)
    only_coco = MMPoseEstimator(name, None, extra_keypoints=False)
    assert only_coco.skeleton is COCO_17
    assert_equals_reference(only_coco, settings, image, selected)
    assert len(MMPoseEstimator(name, None).skeleton) == only_coco.model.head.out_channels > 17


def test_a_head_that_predicts_visibility(image):
    name = "td-hm-vis_res50_8xb64-210e_coco-aic-256x192-merge"
    poses = MMPoseEstimator(name, None).estimate(Frame(image), BOXES, None)
    assert poses.visibility.shape == poses.scores.shape == (3, 17)
    assert np.abs(poses.visibility - poses.scores).max() > 0


def test_flip_test_off_is_one_forward(golden):
    config = vit_config(
        MULTI_23, embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96
    )
    forwards = {}
    for flip_test in (True, False):
        calls = []
        estimator = MMPoseEstimator(config, None, flip_test=flip_test)
        estimator.model.backbone.register_forward_hook(lambda *given, seen=calls: seen.append(1))
        estimator.estimate(Frame(golden["image_bgr"]), golden["boxes_xyxy"], None)
        forwards[flip_test] = len(calls)
    assert forwards == {True: 2, False: 1}


def test_a_box_without_area_gives_a_finite_pose(tiny_maskpose, image):
    boxes = np.array([[50, 60, 50, 60], [50, 60, 50.5, 120]], np.float32)
    poses = tiny_maskpose.estimate(Frame(image), boxes, None)
    assert np.isfinite(poses.keypoints).all() and np.isfinite(poses.scores).all()


def test_the_checkpoint_decides_on_the_mirrored_joints(golden, tmp_path):
    sizes = {"embed_dims": 48, "num_layers": 2, "num_heads": 4, "feedforward_channels": 96}
    config = vit_config(MULTI_21, **sizes)
    torch.manual_seed(6)
    weights = MMPoseEstimator(config, None).model.state_dict()
    frame, boxes = Frame(golden["image_bgr"]), golden["boxes_xyxy"]
    trained = {
        "dataset_name": "trained_on",
        "keypoint_id2name": dict(enumerate(MULTI_21.names)),
        "flip_indices": [*MULTI_21.flip_indices.tolist()[:17], 18, 17, 19, 20],
        "sigmas": list(MULTI_21.sigmas),
    }
    usual = MMPoseEstimator(config, save(tmp_path, weights)).estimate(frame, boxes, None)
    other = MMPoseEstimator(config, save(tmp_path, weights, trained)).estimate(frame, boxes, None)
    changed = np.abs(usual.scores - other.scores).max(axis=0) > 0
    assert changed.tolist() == [False] * 17 + [True, True, False, False]


def test_a_set_without_cocos_joints_keeps_its_own_order():
    skeleton = MMPoseEstimator("td-hm_hrnet-w32_8xb64-210e_mpii-256x256", None).skeleton
    assert len(skeleton.names) == len(skeleton.sigmas) == 16
    assert skeleton.names[0] == "right_ankle" and "thorax" in skeleton.names
    assert all(sigma > 0 for sigma in skeleton.sigmas)
    mirrored = [skeleton.names[i] for i in skeleton.flip_indices]
    assert mirrored[skeleton.names.index("left_wrist")] == "right_wrist"


def test_a_bottom_up_network_is_refused():
    with pytest.raises(ValueError, match="BottomupPoseEstimator; the loop gives boxes"):
        MMPoseEstimator("dekr_hrnet-w32_8xb10-140e_coco-512x512", None)


def test_weights_of_another_size_are_refused(tmp_path):
    small = MMPoseEstimator("vit_s_21", None).model.state_dict()
    with pytest.raises(BadCheckpoint, match=r"weights\.pth do not fit[\s\S]*size mismatch"):
        MMPoseEstimator("vit_s_23", save(tmp_path, small))


def test_an_unknown_config_is_answered_with_similar_names():
    with pytest.raises(FileNotFoundError, match="similar names: vit_b_2"):
        MMPoseEstimator("vit_b_22", None)
    with pytest.raises(FileNotFoundError, match="td-hm_hrnet-w48_8xb32-210e_coco-256x192"):
        MMPoseEstimator("td-hm_hrnet-w48_8xb32_coco-256x192", None)


def test_leaves_no_trace(tmp_path, monkeypatch, capfd, image):
    monkeypatch.chdir(tmp_path)
    before = DefaultScope.get_current_instance()
    MMPoseEstimator("vit_s_21", None).estimate(Frame(image), BOXES, None)
    assert DefaultScope.get_current_instance() is before
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
