# SPDX-License-Identifier: Apache-2.0
"""The camera without hardware: what it publishes, and how it ends."""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from node_harness import LIMIT_S, Lab, stamp_of, wait_for
from rclpy.context import Context
from rclpy.exceptions import InvalidParameterValueException
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from test_node_process import process

from bmp_ros.demo.camera_node import CameraNode, open_source
from bmp_ros.demo.truth_messages import truth_from_message
from bmp_ros.depth.depth_messages import depth_image
from bmp_ros.offline.video import VideoFile
from bmp_ros.ros.image_messages import bgr_image
from bmp_ros.ros.interfaces import PersonArray
from bmp_ros.synthetic.clip_file import open_clip

CAMERA = [sys.executable, "-m", "bmp_ros.demo.camera_node"]
# As the installed program begins.
PROGRAM = [
    sys.executable, "-c",
    "import sys; from bmp_ros.ros.programs import bmp_camera; sys.exit(bmp_camera())",
]  # fmt: skip


@pytest.fixture
def start(lab: Lab) -> Callable[..., CameraNode]:
    """Runs a camera with parameters."""

    def run(**parameters: Any) -> CameraNode:
        given = [Parameter(name, value=value) for name, value in parameters.items()]
        camera: CameraNode = lab._spin(
            lambda context: CameraNode(context=context, parameter_overrides=given)
        )
        return camera

    return run


def listen(lab: Lab, kind: type, topic: str, best_effort: bool = False) -> list[Any]:
    received: list[Any] = []
    reliability = ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE
    profile = QoSProfile(depth=300, reliability=reliability)
    lab.peer.create_subscription(kind, topic, received.append, profile)
    return received


def test_clip_is_played_with_its_truth(lab: Lab, start: Callable[..., CameraNode]) -> None:
    truths = listen(lab, PersonArray, "/camera/ground_truth")
    camera = start(rate=100.0, loop=False, wait_for=1)
    wait_for(lambda: lab.peer.count_publishers("/camera/ground_truth"), "the truth's publisher")
    images = listen(lab, Image, "/camera/image_raw")
    wait_for(lambda: camera.counts["over"] == "yes", "the end of the clip")
    clip = open_clip()
    assert camera.counts["frames sent"] == len(clip)
    wait_for(lambda: len(truths) == len(clip), "the truth of every frame")
    wait_for(lambda: images and stamp_of(images[-1]) == stamp_of(truths[-1]), "the last image")
    stamps = [stamp_of(message) for message in truths]
    assert stamps == sorted(set(stamps))
    images_by_stamp = {stamp_of(message): message for message in images}
    for frame, stamp in zip(clip, stamps, strict=True):
        if frame.number % 20 == 0 and stamp in images_by_stamp:
            message = images_by_stamp[stamp]
            assert message.header == truths[frame.number].header
            assert message.header.frame_id == "camera_optical_frame"
            np.testing.assert_array_equal(bgr_image(message), frame.image)
            truth = truth_from_message(truths[frame.number])
            np.testing.assert_array_equal(truth.masks, frame.people.masks)
            np.testing.assert_array_equal(truth.identities, frame.people.identities)
            np.testing.assert_array_equal(truth.visibility, frame.people.visibility)
            np.testing.assert_allclose(truth.boxes, frame.people.boxes)
            np.testing.assert_allclose(truth.keypoints, frame.people.keypoints, atol=1e-3)


def test_depth_of_the_clip_is_that_of_its_people(
    lab: Lab, start: Callable[..., CameraNode]
) -> None:
    camera = start(rate=100.0, loop=False, images=12, wait_for=1)
    topic = "/camera/depth/image_raw"
    depths = listen(lab, Image, topic)
    wait_for(lambda: lab.peer.count_publishers(topic), "the publisher of depth")
    images = listen(lab, Image, "/camera/image_raw")
    wait_for(lambda: camera.counts["over"] == "yes", "the end")
    wait_for(lambda: len(depths) >= 5 and len(images) >= 5, "depth images")
    with suppress(AssertionError):  # DDS may have lost some
        wait_for(lambda: len(images) == 12, "all images", 10.0)
    is_complete = len(images) == 12
    by_stamp = {stamp_of(message): message for message in images}
    numbers = {stamp_of(m): number for number, m in enumerate(images)}
    checked = 0
    for message in depths:
        if is_complete and stamp_of(message) in by_stamp:
            assert message.header == by_stamp[stamp_of(message)].header
            people = open_clip().people(numbers[stamp_of(message)])
            metres = depth_image(message) / 1000
            shown = people.masks.any(axis=0)
            assert (metres[~shown] == 0).all() and (metres[shown] > 0).all()
            for mask, joints in zip(people.masks, people.joint_depths, strict=True):
                known = joints[joints > 0]
                assert known.min() - 0.01 <= metres[mask].min()
                assert metres[mask].max() <= known.max() + 0.01
            checked += 1
    assert checked or not is_complete


def test_stamps_are_now_and_the_lens_is_known(lab: Lab, start: Callable[..., CameraNode]) -> None:
    before = lab.peer.get_clock().now().nanoseconds
    infos = listen(lab, CameraInfo, "/camera/camera_info")
    start(width=1280, height=960)
    wait_for(lambda: infos, "camera_info")
    info, clip = infos[0], open_clip()
    assert before < stamp_of(info) < lab.peer.get_clock().now().nanoseconds
    assert (info.width, info.height) == (1280, 960)
    assert info.k[0] == pytest.approx(2 * clip.camera_matrix[0, 0])
    assert (info.k[2], info.k[5]) == (639.5, 479.5), "pixel centres at whole numbers"


def test_resized_images_have_no_truth(lab: Lab, start: Callable[..., CameraNode]) -> None:
    images = listen(lab, Image, "/camera/image_raw")
    start(width=320, height=200)
    wait_for(lambda: images, "an image")
    assert (images[0].width, images[0].height) == (320, 200)
    assert lab.peer.count_publishers("/camera/ground_truth") == 0


def test_sensor_qos_is_best_effort(lab: Lab, start: Callable[..., CameraNode]) -> None:
    images = listen(lab, Image, "/camera/image_raw", best_effort=True)
    start(qos="sensor", rate=30.0)
    wait_for(lambda: images, "an image")
    (offered,) = lab.peer.get_publishers_info_by_topic("/camera/image_raw")
    assert offered.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_folder_of_images_in_a_loop(
    lab: Lab, start: Callable[..., CameraNode], tmp_path: Path
) -> None:
    for number in range(3):
        grey = np.full((48, 64, 3), 50 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), grey)
    (tmp_path / "notes.txt").write_text("no image")
    images = listen(lab, Image, "/camera/image_raw")
    start(source=str(tmp_path), rate=100.0, wait_for=1)
    wait_for(lambda: len(images) >= 7, "the folder twice")
    assert {image.data[0] for image in images} == {0, 50, 100}


def test_video_without_truth(lab: Lab, start: Callable[..., CameraNode], tmp_path: Path) -> None:
    video = tmp_path / "plain.mp4"
    video.write_bytes(open_clip().path.read_bytes())
    images = listen(lab, Image, "/camera/image_raw")
    start(source=str(video), wait_for=1)
    wait_for(lambda: images, "an image")
    first = bgr_image(images[0])  # that arrived
    assert any(np.array_equal(first, frame.image) for frame in open_clip())
    assert lab.peer.count_publishers("/camera/ground_truth") == 0


def test_damaged_files_are_skipped_with_one_warning(
    lab: Lab, start: Callable[..., CameraNode], tmp_path: Path
) -> None:
    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), 20 * number, np.uint8))
    cut = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(cut[: len(cut) // 2])
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    (tmp_path / "._1.png").write_bytes(b"x")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("x")
    images = listen(lab, Image, "/camera/image_raw")
    start(source=str(tmp_path), rate=100.0, wait_for=1)
    wait_for(lambda: len(images) >= 9, "the folder several times")
    levels = [image.data[0] for image in images[:4]]
    assert levels in ([20, 200, 20, 200], [200, 20, 200, 20])
    log = lab.log()
    for words in ("2.png (", "caf\\xe9.jpg (1 bytes)", "gone.png", "left out 1 *.txt"):
        assert log.count(words) == 1, log
    assert "Traceback" not in log and "._1" not in log


def test_a_file_that_is_still_being_written_is_shown_once_it_is_whole(tmp_path: Path) -> None:
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), 20 * number, np.uint8))
    late = tmp_path / "2.png"
    whole, said = late.read_bytes(), []
    source = open_source(str(tmp_path), said.append)
    for part in (len(whole) // 3, len(whole) // 2, len(whole) // 2):
        late.write_bytes(whole[:part])
        assert [shot.image[0, 0, 0] for shot in source.play()] == [20]
    late.write_bytes(whole)
    assert [shot.image[0, 0, 0] for shot in source.play()] == [20, 40]
    assert len(said) == 1 and "2.png (" in said[0]


def test_a_folder_of_damaged_files_is_over(
    lab: Lab, start: Callable[..., CameraNode], tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    camera = start(source=str(tmp_path), rate=100.0)
    wait_for(lambda: camera.counts["over"] == "yes", "the end")
    assert camera.counts["frames sent"] == 0


def test_images_and_videos_are_turned(
    lab: Lab, start: Callable[..., CameraNode], tmp_path: Path
) -> None:
    video = VideoFile(tmp_path / "phone.mp4", 20, 64, 48)
    for level in (60, 120, 180):
        video.write(np.full((48, 64, 3), level, np.uint8))
    video.close()
    content = bytearray((tmp_path / "phone.mp4").read_bytes())
    quarter = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, *quarter)
    (tmp_path / "phone.mp4").write_bytes(content)
    images = listen(lab, Image, "/camera/image_raw")
    start(source=str(tmp_path / "phone.mp4"), wait_for=1)
    wait_for(lambda: images, "an image")
    assert (images[0].width, images[0].height) == (48, 64)


def test_a_video_is_shown_at_its_own_times(tmp_path: Path) -> None:
    """Ticks without an image where the rate varies."""
    code = cv2.VideoWriter_fourcc(*"VP80")
    path = tmp_path / "a.ivf"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 10.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this build of FFmpeg writes no VP8")
    for level in range(6):
        writer.write(np.full((48, 64, 3), 40 * level, np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    rate, scale = struct.unpack_from("<II", content, 16)
    place = 32
    for time in (0, 1, 2, 5, 6, 9):
        (size,) = struct.unpack_from("<I", content, place)
        struct.pack_into("<Q", content, place + 4, time * rate // (10 * scale))
        place += 12 + size
    path.write_bytes(content)
    source = open_source(str(path))
    assert source.fps == pytest.approx(10)
    shown = [shot is not None for shot in source.play()]
    assert [tick for tick, due in enumerate(shown) if due] == [0, 1, 2, 5, 6, 9]


def test_live_scenes(lab: Lab, start: Callable[..., CameraNode]) -> None:
    try:
        from bmp_ros.synthetic.generator import shared_renderer

        shared_renderer()
    except (ImportError, RuntimeError) as error:
        pytest.skip(str(error))
    # In a process of its own: an OpenGL context belongs to one thread.
    images = listen(lab, Image, "/camera/image_raw")
    truths = listen(lab, PersonArray, "/camera/ground_truth")
    with process(CAMERA, "-p", "source:=scenes", "-p", "wait_for:=1"):
        wait_for(lambda: len(images) > 1 and truths, "rendered images with their truth")
    assert (images[0].width, images[0].height) == (640, 480)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"source": "/nowhere/at/all.mp4"}, "is no file or folder; a source is clip, scenes"),
        ({"source": __file__}, "is no video that OpenCV"),
        ({"source": str(Path(__file__).parent)}, "holds no image"),
        ({"qos": "fast"}, "needs one of reliable, sensor"),
        ({"width": 320}, "width and height belong together"),
    ],
)
def test_refused_parameters(
    ros_context: Context, parameters: dict[str, object], words: str
) -> None:
    given = [Parameter(name, value=value) for name, value in parameters.items()]
    with pytest.raises(InvalidParameterValueException, match=words):
        CameraNode(context=ros_context, parameter_overrides=given)


def test_process_ends_with_exit_code_0_on_a_signal(lab: Lab) -> None:
    images = listen(lab, Image, "/eye/image_raw")
    with process(PROGRAM, "-r", "__ns:=/eye") as camera:
        wait_for(lambda: images, "an image")
        camera.send_signal(signal.SIGINT)
        output, _ = camera.communicate(timeout=LIMIT_S)
        assert camera.returncode == 0, output
        assert "Traceback" not in output


def test_process_with_a_source_that_is_not_there(lab: Lab) -> None:
    with process(CAMERA, "-p", "source:=nothing.mp4") as camera:
        output, _ = camera.communicate(timeout=LIMIT_S)
        assert camera.returncode == 1
        assert "'nothing.mp4' is no file or folder" in output
        assert "Traceback" not in output
