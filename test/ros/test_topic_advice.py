# SPDX-License-Identifier: Apache-2.0
"""Advice about a silent camera is true for the cause, and names what would help."""

from __future__ import annotations

import pytest

from bmp_ros.ros.topic_advice import Publisher, profile_advice, silence_advice

RAW, JPEG = "/cam/image_raw", "/cam/image_raw/compressed"


@pytest.mark.parametrize(
    ("topic", "kind", "publishers", "words"),
    [
        (JPEG, "Image", [(JPEG, "CompressedImage")], ["image_transport to compressed"]),
        ("/jpegs", "Image", [("/jpegs", "CompressedImage")], ["remap", "/compressed"]),
        (JPEG, "CompressedImage", [(JPEG, "Image")], ["image_transport to raw"]),
        (RAW, "Image", [(RAW, "std_msgs/msg/String")], ["std_msgs/msg/String"]),
        (RAW, "Image", [(JPEG, "CompressedImage")], [JPEG, "image_transport to compressed"]),
        (JPEG, "CompressedImage", [(RAW, "Image")], [RAW, "image_transport to raw"]),
        (RAW, "Image", [("/cam/image_rav", "Image")], ["Did you mean /cam/image_rav?"]),
        (RAW, "Image", [("/x", "Image")], ["Image topics there are: /x;", "set image_topic"]),
        (RAW, "Image", [], ["No node publishes images", "ROS_DOMAIN_ID"]),
        (RAW, "Image", [("/a", "std_msgs/msg/String")], ["No node publishes images"]),
        (RAW, "Image", [(RAW, "Image")], ["1 publisher", "driver"]),
    ],
)
def test_advice(
    topic: str, kind: str, publishers: list[tuple[str, str]], words: list[str]
) -> None:
    advice = silence_advice(
        topic, kind, best_effort=False, publishers=[Publisher(*each) for each in publishers]
    )
    assert all(word in advice for word in words), advice
    assert ("set image_transport to compressed" in advice) == any("compressed" in w for w in words)


@pytest.mark.parametrize(("ours", "words"), [(False, "set image_qos to auto"), (True, "fastdds")])
def test_best_effort(ours: bool, words: str) -> None:
    publishers = [Publisher(RAW, "Image", best_effort=True)]
    assert words in silence_advice(RAW, "Image", best_effort=ours, publishers=publishers)


@pytest.mark.parametrize(
    ("distribution", "names"),
    [
        ("humble", ["FASTRTPS"]), ("jazzy", ["FASTRTPS"]), ("kilted", ["FASTDDS"]),
        ("lyrical", ["FASTDDS"]), ("", ["FASTRTPS", "FASTDDS"]),
    ],
)  # fmt: skip
def test_the_profile_is_set_with_the_variable_that_is_read(
    distribution: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    said = profile_advice()
    found = [n for n in ("FASTRTPS", "FASTDDS") if f"{n}_DEFAULT_PROFILES_FILE" in said]
    assert found == names and "config/fastdds.xml" in said
