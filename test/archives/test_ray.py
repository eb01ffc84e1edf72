# SPDX-License-Identifier: Apache-2.0
"""Archives on a Ray cluster of two nodes, here on one machine: the same outputs, whoever dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="ray is not installed (requirements/archives.txt)")
pytest.importorskip("rosbags", reason="rosbags is not installed (requirements/bags.txt)")
from archive import Killer, files_of, make_archive, orders, outputs, write_image, write_video
from image_loops import WHITE
from test_bag import write_bag

from bmp_ros.archives.pools import RayPool, import_ray
from bmp_ros.archives.run import ArchiveOutcome, run_archive
from bmp_ros.archives.work import Orders, process_file


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes with one processor each."""
    ray = import_ray()
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    sigterm = signal.getsignal(signal.SIGTERM)  # Ray sets its own, and leaves it
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # for the nodes' workers
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes(timeout=300)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()
        signal.signal(signal.SIGTERM, sigterm)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def run(folder: Path, output: Path, size: int | None, address: str, given: Orders):
    return run_archive(
        files_of(folder), given, output, lambda most: RayPool(given, output, size, address)
    )


def one_by_one(folder: Path, output: Path, given: Orders) -> dict[str, bytes]:
    loop = given.build()
    for file in files_of(folder):
        process_file(loop, file, given, output)
    return outputs(output)


def test_two_nodes_write_what_one_process_writes(tmp_path: Path, cluster: str) -> None:
    archive = make_archive(tmp_path / "in")
    write_bag(archive / "bag")
    expected = one_by_one(archive, tmp_path / "alone", orders())
    given = orders(slow_s=0.02)
    seconds = {}
    for size in (1, 2):
        output = tmp_path / f"out{size}"
        outcome: ArchiveOutcome = run(archive, output, size, cluster, given)
        assert (len(outcome.reports), outcome.failed, outcome.deaths) == (8, {}, 0)
        assert outputs(output) == expected
        seconds[size] = outcome.seconds
    print(f"two workers take {seconds[2] / seconds[1]:.2f} of the time of one")


def test_a_killed_worker_and_a_file_that_kills(tmp_path: Path, cluster: str) -> None:
    archive = make_archive(tmp_path / "in")
    write_video(archive / "long.mp4", 60)
    expected = one_by_one(archive, tmp_path / "alone", orders())
    write_image(archive / "poison.png", WHITE)
    output = tmp_path / "out"
    killer = Killer(output, "long.mp4")
    outcome = run(archive, output, None, cluster, orders(slow_s=0.03))
    assert killer.killed
    assert set(outcome.failed) == {"poison.png"} and len(outcome.reports) == 8
    assert outcome.deaths == 4, "three of the poison, one that was killed"
    assert outputs(output) == expected
    again = run_archive(
        files_of(archive), orders(slow_s=0.03), output, lambda most: pytest.fail("workers")
    )
    assert again.skipped == 8 and set(again.failed) == {"poison.png"}


def test_networks_that_cannot_be_built_are_said(tmp_path: Path, cluster: str) -> None:
    archive = make_archive(tmp_path / "in")
    with pytest.raises(RuntimeError, match="weights are missing"):
        run(archive, tmp_path / "out", 2, cluster, orders(broken="weights are missing"))
