#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Camera, node and listener killed and started again in every order; exit code 0 when all recover.

  scripts/with_ros python benchmarks/restarts.py
  scripts/with_ros python benchmarks/restarts.py --server     # with a Fast DDS discovery server
  scripts/with_ros python benchmarks/restarts.py --rounds 1   # one order only

Each is a process of its own and is killed (SIGKILL), so that DDS is told nothing and keeps what it
knew of them until its lease ends. In every order of the three: all are killed, then started one
after the other, and results have to come; then each alone is killed and started while the others
go on. A discovery server is killed in the end: what is connected has to go on without it. Prints
the seconds from the last start to the first result.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "test" / "ros")]
LIMIT_S = 240.0
"""Fast DDS gives up a participant that was killed after 20 s, and matches a new one at once."""
PORT = 11_888


class Parts:
    """The processes by name; ``listener`` writes a line for every result into its file."""

    def __init__(self, folder: Path, names: tuple[str, ...], environment: dict[str, str]) -> None:
        self.names, self._folder, self._environment = names, folder, environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.heard = folder / "heard"
        self.heard.touch()

    def start(self, name: str) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        command = [sys.executable, __file__, "--be", name, "--heard", str(self.heard)]
        if name == "server":
            # -b: it keeps what it knows in files, else whom it met before it was killed is lost.
            command = [
                "fast-discovery-server",
                "-i",
                "0",
                "-b",
                "-l",
                "127.0.0.1",
                "-p",
                str(PORT),
            ]
        log = (self._folder / f"{name}.log").open("ab")
        with log:
            self._running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder,
                env=self._environment | {"PYTHONPATH": path},
            )  # fmt: skip

    def kill(self, *names: str) -> None:
        for name in names:
            process = self._running.pop(name, None)
            if process is not None:
                process.kill()
                process.wait()

    def seconds_to_result(self) -> float | None:
        """Until a result of an image that was taken after now comes; None when none did."""
        start = time.monotonic()
        before = self.heard.stat().st_size
        while time.monotonic() - start < LIMIT_S:
            if self.heard.stat().st_size > before + 2:  # one may have been on its way
                return time.monotonic() - start
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise SystemExit(f"{name} ended with exit code {process.returncode}")
            time.sleep(0.02)
        return None


def be(name: str, heard: Path) -> int:
    """Be one of the processes."""
    import rclpy
    from rclpy.node import Node
    from sensor_msgs.msg import Image

    if name == "node":
        from scripted_networks import ScriptedNetworks

        from bmp_ros.ros.bmp_node import main as node_main

        arguments = ["--ros-args", "-r", "__ns:=/bmp", "-p", "preset:=bmp_d3"]
        return node_main([sys.argv[0], *arguments], build_loop=ScriptedNetworks().build_loop)
    rclpy.init()
    node = Node(name)
    if name == "camera":
        import numpy as np
        from soak_cameras import message_of

        image = message_of(np.full((48, 64, 3), 127, np.uint8), "bgr8")
        publisher = node.create_publisher(Image, "/camera/image_raw", 5)

        def shoot() -> None:
            image.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(image)

        node.create_timer(0.05, shoot)
    else:
        from bmp_ros.ros.interfaces import PersonArray

        def hear(_: Any) -> None:
            with heard.open("ab") as file:
                file.write(b".")

        node.create_subscription(PersonArray, "/bmp/poses", hear, 5)
    rclpy.spin(node)
    return 0


def run(parts: Parts, rounds: int | None) -> list[str]:
    """Kill and start in every order; return what did not recover."""
    wrong = []
    orders = list(itertools.permutations(parts.names))[:rounds]
    for order in orders:
        parts.kill(*parts.names)
        for name in order:
            parts.start(name)
        wrong += _tell(f"all, started as {', '.join(order)}", parts.seconds_to_result())
        for name in order:
            parts.kill(name)
            time.sleep(0.2)
            parts.start(name)
            wrong += _tell(f"{name} alone", parts.seconds_to_result())
    return wrong


def _tell(what: str, seconds: float | None) -> list[str]:
    text = f"{what}: " + (
        f"no result after {LIMIT_S:g} s" if seconds is None else f"{seconds:.1f} s"
    )
    print(text, flush=True)
    return [text] if seconds is None else []


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", action="store_true", help="with a discovery server")
    parser.add_argument("--rounds", type=int, help="orders to run through, default: all")
    parser.add_argument("--be", help=argparse.SUPPRESS)
    parser.add_argument("--heard", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.be is not None:
        return be(args.be, args.heard)
    from bmp_ros.demo.processes import private_domain

    names = ("camera", "node", "listener")
    with private_domain(), tempfile.TemporaryDirectory(prefix="bmp-restarts-") as folder:
        environment = dict(os.environ)
        if args.server:
            environment |= {"ROS_DISCOVERY_SERVER": f"127.0.0.1:{PORT}"}
            environment.pop("ROS_AUTOMATIC_DISCOVERY_RANGE", None)
        parts = Parts(Path(folder), names, environment)
        try:
            if args.server:
                parts.start("server")
            wrong = run(parts, args.rounds)
            if args.server:
                parts.kill("server")
                wrong += _tell("the server is gone", parts.seconds_to_result())
        finally:
            parts.kill("server", *names)
            logs = {path.stem: path.read_text(errors="replace") for path in
                    Path(folder).glob("*.log")}  # fmt: skip
    errors = [line for line in logs["node"].splitlines() if line.startswith(("[ERROR", "[FATAL"))]
    for line in errors:
        print(f"WRONG: in the log of the node: {line}")
    if wrong:
        print(*(f"--- {name}\n{text[-1500:]}" for name, text in logs.items()), sep="\n")
    return 1 if wrong or errors else 0


if __name__ == "__main__":
    sys.exit(main())
