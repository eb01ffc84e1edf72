# SPDX-License-Identifier: Apache-2.0
"""The Python examples as processes, over DDS, against published messages."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

HOW_TO_RUN = "run it with `make test` or `scripts/with_ros python -m pytest test/examples`"
rclpy = pytest.importorskip("rclpy", reason=f"rclpy is not there; {HOW_TO_RUN}")
interfaces = pytest.importorskip(
    "bmp_ros.ros.interfaces", reason=f"bmp_msgs is not there; {HOW_TO_RUN}", exc_type=ImportError
)

from geometry_msgs.msg import Point, PoseStamped, Twist, TwistStamped  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from ros_domains import claimed_domain  # noqa: E402

from bmp_ros.demo.processes import ChildProcess  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT_S = 180.0
STILL = (0.0, 0.0)
NAMES = ["nose", "left_eye", "right_eye"]


class Peer:
    """A node of the test, spun while it waits. Publishes on ``topic`` once somebody listens."""

    def __init__(self, context: Context, topic: str, kind: type) -> None:
        self.node = Node("peer", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.publisher = self.node.create_publisher(kind, topic, 5)

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        until = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < until, f"waited {LIMIT_S:.0f} s for {what}"
            self.executor.spin_once(timeout_sec=0.02)

    def publish(self, message: Any) -> None:
        self.wait_for(lambda: self.publisher.get_subscription_count() > 0, "the example")
        self.publisher.publish(message)


@pytest.fixture
def context(request: pytest.FixtureRequest) -> Iterator[Context]:
    with claimed_domain() as domain:
        context = Context()
        rclpy.init(context=context, domain_id=domain)
        yield context
        context.try_shutdown()
        request.node.funcargs.clear()  # they refer to nodes, and have been torn down


def example(name: str, folder: Path, *arguments: str) -> ChildProcess:
    log = folder / f"{Path(name).stem}.log"
    return ChildProcess(name, [str(EXAMPLES / name), *arguments], log)


def people_at(*places: tuple[float, float]) -> Any:
    """People at (x to the right, z ahead) metres in the camera's optical frame, with the ids 1,
    2, …; NaN: unknown."""
    return interfaces.PersonArray3D(
        people=[
            interfaces.Person3D(
                track_id=number, centroid=Point(x=x, y=0.0, z=z), distance=math.hypot(x, z)
            )
            for number, (x, z) in enumerate(places, start=1)
        ]
    )


class Robot:
    """``commands``: (forward, turn) of every Twist that arrived."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.commands: list[tuple[float, float]] = []
        topic = peer.node.create_subscription(
            Twist, "/cmd_vel", lambda m: self.commands.append((m.linear.x, m.angular.z)), 50
        )
        peer.wait_for(lambda: topic.get_publisher_count() > 0, "a publisher of /cmd_vel")
        # Whom we have discovered may not have discovered us: until an answer comes, ask again.
        self._ask(people_at((0.0, 4.0)), lambda turn: turn == 0, again=True)
        # Messages keep their order: after this answer, none of those before is under way.
        self._ask(people_at((-4.0, 4.0)), lambda turn: turn > 0, again=False)

    def _ask(self, message: Any, answers: Callable[[float], bool], *, again: bool) -> None:
        def answered() -> bool:
            if again:
                self.peer.publish(message)
            return any(go > 0 and answers(turn) for go, turn in self.commands)

        self.peer.publish(message)
        self.peer.wait_for(answered, "an answer to a person")

    def answer_to(self, message: Any) -> tuple[float, float]:
        """The command that follows a message; the only one, while no clock runs."""
        before = len(self.commands)
        self.peer.publish(message)
        self.peer.wait_for(lambda: len(self.commands) > before, "a command")
        assert len(self.commands) == before + 1
        return self.commands[-1]


def test_follows_the_nearest_and_stops_for_nobody(context: Context, tmp_path: Path) -> None:
    peer = Peer(context, "/bmp/poses_3d", interfaces.PersonArray3D)
    # Simulated time that nobody publishes: the watchdog sleeps, every command answers a message.
    frozen = ["--ros-args", "-p", "use_sim_time:=true"]
    with example("follow_nearest.py", tmp_path, *frozen) as running:
        robot = Robot(peer)
        far_left, near_right = (-2.0, 6.0), (1.0, 2.5)
        forward, turn = robot.answer_to(people_at(far_left, near_right))
        assert 0 < forward <= 0.4 and turn == pytest.approx(-math.atan2(1.0, 2.5))
        forward, turn = robot.answer_to(people_at(far_left))
        assert forward == pytest.approx(0.4) and turn > 0
        forward, turn = robot.answer_to(people_at((-0.2, 0.5)))
        assert forward == 0 and turn > 0, "it turns to who is close and does not back away"
        assert robot.answer_to(people_at()) == STILL
        unknown = (math.nan, math.nan)
        assert robot.answer_to(people_at(unknown)) == STILL
        assert robot.answer_to(people_at(unknown, far_left))[0] > 0
        assert "following person 2" in running.log.read_text(encoding="utf-8")
        assert running.end() == 0, running.last_words()


def test_stops_when_no_messages_come_any_more(context: Context, tmp_path: Path) -> None:
    peer = Peer(context, "/bmp/poses_3d", interfaces.PersonArray3D)
    with example("follow_nearest.py", tmp_path):
        robot = Robot(peer)
        peer.wait_for(lambda: robot.commands[-1] == STILL, "the robot to stop")


def test_prints_people(context: Context, tmp_path: Path) -> None:
    peer = Peer(context, "/bmp/poses", interfaces.PersonArray)
    message = interfaces.PersonArray(height=48, width=64)
    message.header.stamp.sec, message.header.stamp.nanosec = 12, 34
    message.skeleton.keypoint_names = NAMES
    person = interfaces.Person(score=0.75, track_id=7)
    person.bbox.x, person.bbox.y = 10.0, 20.0
    person.keypoints = [interfaces.Keypoint(score=score) for score in (0.9, 0.1, 0.8)]
    person.mask = interfaces.Mask(width=3, height=2, counts=[1, 4, 1])
    message.people = [person, interfaces.Person(track_id=-1, keypoints=person.keypoints)]
    with example("print_people.py", tmp_path) as running:

        def printed() -> str:
            return running.log.read_text(encoding="utf-8")

        def shows() -> bool:
            peer.publish(message)
            return "no id yet: 0.00 at 0 0, 0 px: nose right_eye\n" in printed()

        peer.wait_for(shows, "the example to print somebody")
        assert printed().startswith(
            "12.000000034: 2 people\n"
            "  id 7: 0.75 at 10 20, 4 px: nose right_eye\n"
            "  no id yet: 0.00 at 0 0, 0 px: nose right_eye\n"
        )
        peer.publish(interfaces.PersonArray())
        peer.wait_for(lambda: printed().endswith("0.000000000: 0 people\n"), "nobody")
        for _ in range(50):  # Ctrl-C meets it amid of messages
            peer.publish(message)
        assert running.end() == 0, running.last_words()
        assert "Traceback" not in printed()


FOLLOW = "follow_person/follow_person.py"


def load_control() -> ModuleType:
    path = EXAMPLES / "follow_person" / "control.py"
    spec = importlib.util.spec_from_file_location("follow_person_control", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


control = load_control()
metres = st.floats(-8, 8)
LIMITS = control.Limits()


@given(metres, metres)
def test_no_command_is_beyond_the_limits_or_backwards(ahead: float, left: float) -> None:
    command = control.drive(ahead, left, LIMITS)
    assert 0 <= command.forward <= LIMITS.speed and abs(command.turn) <= LIMITS.turn
    assert command.turn * left >= 0  # towards the person
    if math.hypot(ahead, left) <= LIMITS.keep or ahead <= 0:
        assert command.forward == pytest.approx(0, abs=1e-9)


@given(metres, metres)
def test_goals_are_on_the_way_and_keep_the_distance(ahead: float, left: float) -> None:
    x, y, yaw = control.goal(ahead, left, LIMITS)
    distance = math.hypot(ahead, left)
    assert math.hypot(ahead - x, left - y) >= min(distance, LIMITS.keep) - 1e-9
    assert math.hypot(x, y) == pytest.approx(max(0, distance - LIMITS.keep), abs=1e-9)
    if distance > 1e-6:
        assert (math.cos(yaw), math.sin(yaw)) == pytest.approx((ahead / distance, left / distance))


def test_acceleration_is_limited_and_braking_is_not() -> None:
    full, still = control.Command(0.4, 0.5), control.Command()
    first = control.accelerate(still, full, 0.1, LIMITS)
    assert first == control.Command(pytest.approx(0.04), 0.5)
    assert control.accelerate(full, still, 0.05, LIMITS) == still


def test_axes() -> None:
    assert control.on_the_ground(1.0, 0.3, 4.0, "optical") == (4.0, -1.0)
    assert control.on_the_ground(4.0, 1.0, 0.3, "base") == (4.0, 1.0)
    assert control.on_the_ground(math.nan, 0.0, math.nan, "optical") is None


def now(peer: Peer, message: Any, frame: str = "camera_optical_frame") -> Any:
    message.header.stamp = peer.node.get_clock().now().to_msg()
    message.header.frame_id = frame
    return message


@pytest.mark.parametrize("stamped", [False, True])
def test_velocities(context: Any, tmp_path: Path, stamped: bool) -> None:
    peer = Peer(context, "/bmp/followed_person", interfaces.PersonArray3D)
    kind = TwistStamped if stamped else Twist
    commands: list[Any] = []
    peer.node.create_subscription(kind, "/cmd_vel", commands.append, 50)
    options = ["--ros-args", "-p", f"stamped:={str(stamped).lower()}", "-p", "patience:=1.0"]

    def last() -> tuple[float, float]:
        twist = commands[-1].twist if stamped else commands[-1]
        return twist.linear.x, twist.angular.z

    def told(message: Any, wanted: Any, what: str, *, old: bool = False) -> None:
        def answered() -> bool:
            peer.publish(message if old else now(peer, message))
            return bool(commands) and wanted(*last())

        peer.wait_for(answered, what)

    with example(FOLLOW, tmp_path, *options) as running:
        peer.wait_for(lambda: commands, "commands")
        assert last() == (0, 0), "it stands until someone is followed"
        told(people_at((-1.0, 4.0)), lambda go, turn: go > 0.2 and turn > 0, "speed")
        told(people_at(), lambda go, turn: (go, turn) == (0, 0), "a stop for nobody")
        told(people_at((1.0, 4.0)), lambda go, turn: 0 < go <= 0.4 and turn < 0, "speed again")
        slow = [c.twist if stamped else c for c in commands]
        assert max(b.linear.x - a.linear.x for a, b in zip(slow, slow[1:], strict=False)) < 0.03
        past = now(peer, people_at((0.0, 4.0)))
        past.header.stamp.sec -= 5
        told(past, lambda go, turn: (go, turn) == (0, 0), "a stop for an old image", old=True)
        told(people_at((0.0, 4.0)), lambda go, turn: go > 0, "speed again")
        unknown = people_at((math.nan, math.nan))
        told(unknown, lambda go, turn: (go, turn) == (0, 0), "a stop without depth")
        told(people_at((0.0, 4.0)), lambda go, turn: go > 0, "speed again")
        peer.wait_for(lambda: last() == (0, 0), "the watchdog")
        told(people_at((0.0, 4.0)), lambda go, turn: go > 0.1, "speed at the end")
        assert running.end() == 0, running.last_words()
        peer.wait_for(lambda: last() == (0, 0), "a stop as the last command")
        assert "following person 1" in running.log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("output:=nav2", "output nav2 needs axes base"),
        ("keep:=-1.0", "keep is -1.0, allowed: a number above 0"),
        ("speed:=fast", "speed is 'fast', allowed: a number"),
        ("stamped:=1", "stamped is 1, allowed: true or false"),
    ],
)
def test_wrong_parameters_are_told_in_one_line(option: str, words: str) -> None:
    command = [sys.executable, str(EXAMPLES / FOLLOW), "--ros-args", "-p", option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.strip().startswith(f"follow_person: {words}")


def test_goals_for_nav2(context: Any, tmp_path: Path) -> None:
    peer = Peer(context, "/bmp/followed_person", interfaces.PersonArray3D)
    goals: list[PoseStamped] = []
    peer.node.create_subscription(PoseStamped, "/goal_pose", goals.append, 50)
    options = ["--ros-args", "-p", "output:=nav2", "-p", "axes:=base", "-p", "patience:=1"]
    with example(FOLLOW, tmp_path, *options) as running:
        message = people_at((3.2, 0.0))  # x and z of the message: ahead in the base's axes
        message.people[0].centroid.z = 1.0

        def sent() -> bool:
            peer.publish(now(peer, message, "base_link"))
            return len(goals) >= 3 and goals[-1].pose.position.x > 0

        peer.wait_for(sent, "goals")
        assert goals[-1].header.frame_id == "base_link" and goals[-1].header.stamp.sec > 0
        assert goals[-1].pose.position.x == pytest.approx(2.0)
        assert goals[-1].pose.orientation.w == pytest.approx(1.0)
        peer.wait_for(lambda: goals[-1].pose.position.x == 0, "the stop where the robot is")
        assert goals[-1].header.stamp.sec == 0
        count = len(goals)
        peer.wait_for(sent, "goals again")
        assert running.end() == 0, running.last_words()
        peer.wait_for(lambda: goals[-1].pose.position.x == 0, "the stop at the end")
        assert len(goals) > count
