# SPDX-License-Identifier: Apache-2.0
"""A real node on real DDS: only its three networks say what a test wrote down.

`Lab` runs a `BmpNode` with its own executor and thread, and a second ROS context, in which the
test publishes, subscribes and calls. Waiting is always for a condition, with a generous limit.
"""

from __future__ import annotations

import re
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import rclpy
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from scripted_networks import LIMIT_S, ScriptedNetworks
from sensor_msgs.msg import Image

from bmp_ros.loop import BMPLoop
from bmp_ros.ros.bmp_node import BmpNode
from bmp_ros.ros.interfaces import PersonArray

MAY_BE_ASKED_TWICE = (GetParameters, GetState, SetParameters)

SET_BY_THE_LAB = {"preset": "bmp_d3", "latency_budget_ms": 0.0, "image_timeout": 3600.0}

TOPIC = "/camera/image_raw"


def wait_for(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Return the first true value of ``condition()``; AssertionError after ``limit_s``."""
    until = time.monotonic() + limit_s
    while True:
        # Asked before the look: a machine that stood still for so long gets one more.
        is_late = time.monotonic() > until
        # An executor's thread may destroy what is looked at: then it is looked at again.
        with suppress(InvalidHandle):
            if value := condition():
                return value
        assert not is_late, f"waited {limit_s:.0f} s for {what}"
        time.sleep(0.005)


class Lab:
    """networks, node: what is tested, from `start` on. peer: the node of the test. log: gives all
    that was logged to the console so far; not /rosout: rcl keeps one publisher per name of a node
    in a process, of whatever context. escaped: errors that left a callback, of which `close`
    fails."""

    def __init__(self, domain: int, log: Callable[[], str]) -> None:
        self._domain = domain
        self.log = log
        self._running: list[tuple[Node, Callable[[], None]]] = []
        self._clients: dict[tuple[type, str], Any] = {}
        self.escaped: list[str] = []
        self.networks = ScriptedNetworks()
        self.node: BmpNode | None = None
        self.peer: Any = self._spin(lambda context: Node("peer", context=context))

    def start(
        self,
        *,
        build_loop: Callable[..., BMPLoop] | None = None,
        cli_args: list[str] | None = None,
        **parameters: Any,
    ) -> None:
        """Run the node with parameters; ``image_topic=…``; names with dots through a dict."""
        # The scripted networks stand for those of bmp_d3; preset auto depends on the machine. So
        # does the age of results: five late ones would be a warning for the next hundred. After
        # five seconds without an image, diagnostics say nothing else.
        given: dict[str, Any] = dict(SET_BY_THE_LAB)
        given |= parameters.pop("parameters", {}) | parameters

        def make(context: Context) -> BmpNode:
            return BmpNode(
                build_loop=build_loop or self.networks.build_loop,
                context=context,
                cli_args=cli_args,
                namespace="/bmp",
                parameter_overrides=[Parameter(k, value=v) for k, v in given.items()],
            )

        self.node = self._spin(make)

    def start_active(self, **parameters: Any) -> None:
        """Run the node and wait until it is active."""
        self.start(**parameters)
        self.wait_for_state("active")

    def state(self) -> str:
        assert self.node is not None
        return str(self.node._state_machine.current_state[1])

    def wait_for_state(self, state: str) -> None:
        wait_for(lambda: self.state() == state, f"state {state}")

    def transition(self, label: str) -> bool:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        # By number: a label that the state does not have is refused before anything can go wrong.
        request.transition.id = {
            "configure": Transition.TRANSITION_CONFIGURE,
            "cleanup": Transition.TRANSITION_CLEANUP,
            "activate": Transition.TRANSITION_ACTIVATE,
            "deactivate": Transition.TRANSITION_DEACTIVATE,
            "active_shutdown": Transition.TRANSITION_ACTIVE_SHUTDOWN,
        }[label]
        return bool(self.call(ChangeState, "/bmp/bmp_node/change_state", request).success)

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service and return its response."""
        if (kind, name) not in self._clients:
            self._clients[kind, name] = self.peer.create_client(kind, name)
        client = self._clients[kind, name]
        self.wait_for_service(client)
        futures = [client.call_async(request)]
        asked = time.monotonic()

        def answered() -> bool:
            # DDS drops an answer when the server has not discovered the client's reader yet.
            nonlocal asked
            if kind in MAY_BE_ASKED_TWICE and time.monotonic() > asked + 5:
                futures.append(client.call_async(request))
                asked = time.monotonic()
            return any(future.done() for future in futures)

        wait_for(answered, f"answer of {name}")
        return next(future.result() for future in futures if future.done())

    def wait_for_service(self, client: Any) -> None:
        """Wait until both sides know each other: DDS drops the answer to who is not known yet."""
        wait_for(client.service_is_ready, f"service {client.srv_name}")
        node = self.node
        if node is not None and hasattr(node, "count_clients"):  # Humble cannot tell
            wait_for(
                lambda: node.count_clients(client.srv_name) > 0, f"{client.srv_name}'s client"
            )

    def set(self, **parameters: Any) -> list[Any]:
        """Set parameters from outside; returns the SetParametersResults."""
        values = [Parameter(k, value=v).to_parameter_msg() for k, v in parameters.items()]
        request = SetParameters.Request(parameters=values)
        return list(self.call(SetParameters, "/bmp/bmp_node/set_parameters", request).results)

    def get(self, name: str) -> Any:
        request = GetParameters.Request(names=[name])
        answer = self.call(GetParameters, "/bmp/bmp_node/get_parameters", request)
        return Parameter.from_parameter_msg(_parameter_message(name, answer.values[0])).value

    def camera(
        self,
        topic: str = TOPIC,
        *,
        kind: type = Image,
        best_effort: bool = False,
        peer: Any = None,
    ) -> CameraStandIn:
        stand_in = CameraStandIn(peer or self.peer, topic, kind, best_effort)
        # Discovery is done when both sides have seen each other.
        stand_in.is_seen = lambda: self.node is None or is_matched(self.node, topic)
        return stand_in

    def listen(self, topic: str, kind: type = PersonArray) -> list[Any]:
        """Messages of a topic, as they come."""
        received: list[Any] = []
        self.peer.create_subscription(kind, topic, received.append, 50)
        wait_for(lambda: is_matched(self.peer, topic), f"publisher of {topic}")
        assert self.node is not None
        # The publisher itself, not the graph, which knows of a subscriber before it is matched.
        node = self.node
        wait_for(
            lambda: any(
                each.topic_name == topic and each.get_subscription_count() > 0
                for each in node.publishers
            ),
            f"subscriber of {topic}",
        )
        return received

    def wait_for_log(self, *words: str) -> str:
        """Wait for one entry of the log with all words, and return it."""

        def found() -> str | None:
            entries = re.split(r"\n(?=\[[A-Z]+\] \[)", self.log())
            return next((e for e in entries if all(word in e for word in words)), None)

        try:
            return str(wait_for(found, f"{words} in the log"))
        except AssertionError as error:
            raise AssertionError(f"{error}, which is:\n{self.log()}") from None

    def diagnosis(self, name: str, condition: Callable[[Any], bool], what: str) -> Any:
        """Wait for a DiagnosticStatus whose name ends with ``name`` and that fits."""
        from diagnostic_msgs.msg import DiagnosticArray

        received: list[Any] = []
        subscription = self.peer.create_subscription(
            DiagnosticArray, "/diagnostics", received.append, 10
        )

        def found() -> Any:
            statuses = [s for array_ in list(received) for s in array_.status]
            return next((s for s in statuses if s.name.endswith(name) and condition(s)), None)

        try:
            return wait_for(found, f"diagnostics: {what}")
        except AssertionError as error:
            said = [s.message for array_ in received for s in array_.status]
            raise AssertionError(f"{error}; they said {sorted(set(said))}") from None
        finally:
            self.peer.destroy_subscription(subscription)

    def restart_peer(self) -> Node:
        """One more node of the test, in a context of its own."""
        return self._spin(lambda context: Node("another_peer", context=context))

    def close(self) -> None:
        """End all nodes. What has not ended then still runs or is referred to: `ros_domains`."""
        self.networks.gate.set()
        has_ended = True
        while self._running:
            node, end = self._running.pop()
            end()
            # As in the node's process: a configuration that is under way would start a worker.
            if node is self.node:
                has_ended = node.close(LIMIT_S)
            node.destroy_node()
            node.context.try_shutdown()
        # The lifecycle services go when nothing refers to the state machine any more.
        self.node = self.peer = None
        self._clients.clear()
        assert has_ended, "the worker did not end"
        assert not self.escaped, "\n".join(self.escaped)

    def _spin(self, make: Callable[[Context], Any]) -> Any:
        context = Context()
        rclpy.init(context=context, domain_id=self._domain)
        try:
            node = make(context)
        except BaseException:
            context.try_shutdown()
            raise
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)

        ended = threading.Event()

        def run() -> None:
            while not ended.is_set():
                try:
                    executor.spin_once(timeout_sec=1.0)
                except ExternalShutdownException:
                    return
                except InvalidHandle:
                    # What the test's thread destroyed while the executor was about to wait for
                    # it; rclpy looks out for that with all entities but their event handlers.
                    continue
                except Exception:
                    if not context.ok():  # rclpy stumbles over its own shutdown
                        return
                    self.escaped.append(traceback.format_exc())
                    traceback.print_exc()  # and goes on, as the node's own process does
                    ended.wait(0.05)

        thread = threading.Thread(target=run, daemon=True)

        def end() -> None:
            # rclpy's shutdown must not run beside its own spin: it takes away what that waits for,
            # and the traceback of the thread that dies of it keeps the node alive.
            ended.set()
            executor.wake()
            thread.join(LIMIT_S)
            executor.shutdown()

        thread.start()
        self._running.append((node, end))
        return node


def is_matched(node: Any, topic: str, publishers: int = 1) -> bool:
    """Whether a subscription of ``node`` would receive what so many publish on ``topic`` now.

    The graph knows of a publisher before its messages can arrive: asking the subscription itself
    is the only way to be sure. Humble cannot.
    """
    mine = [each for each in node.subscriptions if each.topic_name == topic]
    if any(not hasattr(each, "get_publisher_count") for each in mine):
        return bool(node.count_publishers(topic) >= publishers)
    return any(each.get_publisher_count() >= publishers for each in mine)


class CameraStandIn:
    """Publishes images with stamps that count up by a millisecond."""

    def __init__(self, peer: Node, topic: str, kind: type, best_effort: bool) -> None:
        reliability = ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE
        self._peer = peer
        self.is_seen: Callable[[], bool] = lambda: True
        self.publisher = peer.create_publisher(
            kind, topic, QoSProfile(depth=5, reliability=reliability)
        )
        self.sent: list[int] = []

    def wait_for_subscriber(self) -> None:
        wait_for(lambda: self.publisher.get_subscription_count() > 0, "a subscriber")
        wait_for(self.is_seen, "the node to see the camera")

    def send(
        self, message: Any = None, *, stamp_ns: int | None = None, frame_id: str = "cam"
    ) -> int:
        """Publish an image; returns its stamp in nanoseconds."""
        message = image() if message is None else message
        if stamp_ns is None:
            now = self._peer.get_clock().now().nanoseconds
            stamp_ns = max(now, (self.sent or [0])[-1] + 1)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        message.header.frame_id = frame_id
        self.sent.append(stamp_ns)
        self.publisher.publish(message)
        return stamp_ns

    def destroy(self) -> None:
        self._peer.destroy_publisher(self.publisher)


def image(width: int = 64, height: int = 48, encoding: str = "bgr8", **fields: Any) -> Image:
    """An image message of grey pixels; ``fields`` replace what is in it."""
    channels = {"bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "mono8": 1, "mono16": 2}
    step = width * channels.get(encoding, 3)
    message = Image(height=height, width=width, encoding=encoding, step=step)
    message.data = array("B", bytes([127])) * (step * height)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def _parameter_message(name: str, value: Any) -> Any:
    from rcl_interfaces.msg import Parameter as ParameterMessage

    return ParameterMessage(name=name, value=value)


@contextmanager
def lab_in(domain: int, log: Callable[[], str]) -> Iterator[Lab]:
    """A `Lab`, and its end. log: gives all that was written to the console so far."""
    lab = Lab(domain, log)
    try:
        yield lab
    finally:
        lab.close()
