# SPDX-License-Identifier: Apache-2.0
"""``bmp_node``: images of any number of cameras in, the people in them out.

The executor's thread only takes messages in, answers services and changes states; one worker
thread computes. docs/node.md is the reference of topics, services and parameters.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.task import Future
from rclpy.utilities import remove_ros_args
from std_srvs.srv import SetBool, Trigger

from bmp_ros.engines.build import build_loop
from bmp_ros.interaction.zones import parse_zones
from bmp_ros.ros import diagnostics
from bmp_ros.ros.camera import DEFAULT_NAME, Camera
from bmp_ros.ros.compatibility import ManagedNode, steady_clock
from bmp_ros.ros.engine_loading import (
    BuildLoop,
    Engines,
    free_memory,
    load_engines,
    memory_in_use,
)
from bmp_ros.ros.executor_tasks import ExecutorTasks
from bmp_ros.ros.following import answer_follow
from bmp_ros.ros.frame_processor import Answer, Estimate, FrameProcessor
from bmp_ros.ros.interaction import Interaction
from bmp_ros.ros.interfaces import EstimatePeople, FollowPerson
from bmp_ros.ros.parameter_files import files_for_others
from bmp_ros.ros.parameters import NodeParameters
from bmp_ros.ros.process import forward_log, run_node, stop_forwarding
from bmp_ros.ros.settings import CAMERA, ENGINE
from bmp_ros.ros.throttle import Throttle
from bmp_ros.ros.worker import MAX_REQUESTS, Worker
from bmp_ros.tracking import IdCounter
from bmp_ros.weights.errors import WeightsError

_WATCH_S = 0.5
_DIAGNOSE_S = 1.0
_REMIND_S = 30.0

_EXPECTED = (WeightsError, ValueError, OSError, ImportError)  # their messages say what to do

Result = TransitionCallbackReturn


class BmpNode(ManagedNode):
    """The node. build_loop: makes the loop from preset, device, precision and compile.

    Raises SettingsError for parameters that are refused.
    """

    def __init__(
        self, node_name: str = "bmp_node", *, build_loop: BuildLoop = build_loop, **options: Any
    ) -> None:
        super().__init__(node_name, **options)
        self._build_loop = build_loop
        self._log_handler = forward_log(self.get_logger())
        self._engines: Engines | None = None
        self._cameras: dict[str, Camera] = {}
        self._worker: Worker | None = None
        self._throttle = Throttle()
        self._listening = False
        self._enabled = True
        self._problem = ""
        self._interaction = Interaction(self, ExecutorTasks(self))
        self._counter = IdCounter()  # one for the process: no id ever means two people
        self.parameters = NodeParameters(self)
        arguments = options.get("cli_args") or sys.argv
        for remark in files_for_others(arguments, self.get_fully_qualified_name()):
            self.get_logger().warning(remark)
        unknown = self.parameters.unknown()
        if unknown:
            self.get_logger().warning(
                f"parameters that {node_name} does not have, and ignores: {', '.join(unknown)}"
            )

        clock = steady_clock()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(_DIAGNOSE_S, self._publish_diagnostics, clock=clock)
        self.create_timer(_WATCH_S, self._watch_cameras, clock=clock)
        self.create_service(SetBool, "~/enable", self._enable)
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_service(FollowPerson, "~/follow", self._follow)
        # In the default group, which is mutually exclusive, an answer that is waited for would
        # keep everything else of the node waiting as well.
        self.create_service(
            EstimatePeople,
            "~/estimate",
            self._estimate,
            callback_group=ReentrantCallbackGroup(),
        )
        # Wakes the executor, which then looks again at the services that wait for an answer.
        self._answered = self.create_guard_condition(lambda: None)
        if self.parameters.start().autostart:
            self._autostart = self.create_timer(0.0, self._start, clock=clock)
        else:
            self.get_logger().info(
                "autostart is false: waiting for a lifecycle manager, or for "
                f"{self._command('lifecycle')}configure, then activate"
            )

    # Transitions. Each leaves a clean state whatever happens, and can be repeated.

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        self._problem = ""
        try:
            self._build()
        except Exception as error:
            self._problem = self._refuse("configure", error)
            self._tear_down()
            return Result.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        try:
            for camera in self._cameras.values():
                camera.enable(self._enabled)
                zones = parse_zones(self.parameters.interaction(camera.key).zones)
                camera.listen(
                    self.parameters.camera(camera.key),
                    ground_zones=any(zone.on_ground for zone in zones),
                )
                self.get_logger().info(
                    f"{camera.name}: listening to {camera.source}; {camera.what_counts()}"
                )
        except Exception as error:  # rclpy would end in an error without a word
            self._refuse("activate", error)
            self._stop_listening()
            return Result.FAILURE
        self._listening = True
        self.parameters.frozen = (ENGINE, CAMERA)
        # No image is taken before this thread is back: none meets an inactive publisher.
        return super().on_activate(state)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        self._stop_listening()
        self.parameters.frozen = (ENGINE,)
        # Only now: an inactive publisher drops what it is given without a word.
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        result = super().on_cleanup(state)
        self._tear_down()
        return result

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        self._stop_listening()
        result = super().on_shutdown(state)
        self._tear_down()
        return result

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        self._stop_listening()
        self._tear_down()
        return Result.SUCCESS

    def close(self, timeout: float | None = None) -> bool:
        """Stop computing for good; False when a frame was still in work after ``timeout``."""
        stop_forwarding(self._log_handler)
        self._listening = False
        return self._stop_worker("the node has ended", timeout)

    def _start(self) -> None:
        self._autostart.cancel()
        if self.trigger_configure() == Result.SUCCESS:
            self.trigger_activate()

    def _refuse(self, transition: str, error: Exception) -> str:
        """Log why a transition fails and what to do then; return why."""
        problem = str(error)
        if not isinstance(error, _EXPECTED):
            problem = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        rest = ", then activate" if transition == "configure" else ""
        self.get_logger().error(
            f"cannot {transition}: {problem}\nWhen that is done ({self._command('param')}NAME "
            f"VALUE changes a parameter): {self._command('lifecycle')}{transition}{rest}"
        )
        return problem

    def _command(self, group: str) -> str:
        """The beginning of ``ros2 param set`` or ``ros2 lifecycle set`` of this node."""
        return f"ros2 {group} set {self.get_fully_qualified_name()} "

    def _build(self) -> None:
        self.parameters.declare_cameras()
        ignored = self.parameters.not_taken_over()
        if ignored:
            self.get_logger().warning(
                f"every one of several cameras has its own topics; ignored: {', '.join(ignored)}"
            )
        self._engines = load_engines(
            self.parameters.engine(),
            self.get_logger(),
            cancelled=lambda: not self.context.ok(),
            build=self._build_loop,
        )
        self.parameters.take_preset(self._engines.preset.loop)
        processor = FrameProcessor(self, self.parameters, self._engines.loop, self._interaction)
        worker = Worker(processor.process, processor.answer, processor.report_bug)
        worker.start()
        self._worker = worker
        several = bool(self.parameters.cameras())
        self._cameras = {
            name: Camera(self, name, worker, self._counter, prefix=f"{name}/" if several else "")
            for name in self.parameters.cameras() or (DEFAULT_NAME,)
        }
        self.parameters.frozen = (ENGINE,)

    def _tear_down(self) -> None:
        self._stop_worker("the node is being cleaned up", None)
        for camera in self._cameras.values():
            camera.publishers.destroy()
        self._interaction.close()
        self._cameras = {}
        self._engines = None
        self.parameters.frozen = ()
        free_memory()

    def _stop_listening(self) -> None:
        self._listening = False
        for camera in self._cameras.values():
            camera.stop_listening()
            camera.stop()
            self._interaction.camera_stopped(camera)

    def _stop_worker(self, reason: str, timeout: float | None) -> bool:
        if self._worker is None:
            return True
        for estimate in self._worker.close():
            estimate.answer.set_result(Answer(None, reason))
        stopped = self._worker.join(timeout)
        if stopped:
            self._worker = None
        return stopped

    # Services and timers, on the executor's thread.

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = bool(request.data)
        for camera in self._cameras.values():
            camera.enable(self._enabled)
            if not self._enabled:
                self._interaction.camera_stopped(camera)
        response.success = True
        response.message = "enabled" if self._enabled else "disabled"
        if not self._listening:
            response.message += "; the node is not active: it looks at images once it is"
        return response

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        for camera in self._cameras.values():
            camera.reset()
        response.success = bool(self._cameras)
        response.message = (
            "forgot all images before" if self._cameras else "nothing to reset: not configured"
        )
        return response

    def _follow(
        self, request: FollowPerson.Request, response: FollowPerson.Response
    ) -> FollowPerson.Response:
        answer_follow(
            {name: camera.following for name, camera in self._cameras.items()},
            request,
            response,
            tracking=self.parameters.run().tracking,
            timeouts_s={
                name: self.parameters.interaction(camera.key).follow_timeout
                for name, camera in self._cameras.items()
            },
        )
        whom = f"person {response.track_id}" if response.track_id >= 0 else "nobody"
        why = f" ({response.message})" if response.message else ""
        self.get_logger().info(f"follow: {whom} is followed{why}")
        return response

    async def _estimate(
        self, request: EstimatePeople.Request, response: EstimatePeople.Response
    ) -> EstimatePeople.Response:
        if self._worker is None:
            response.message = (
                "the node is not configured: run ros2 lifecycle set "
                f"{self.get_fully_qualified_name()} configure"
            )
            return response
        answer: Future = Future()
        answer.add_done_callback(lambda _: self._answered.trigger())
        if not self._worker.request(Estimate(request.image, answer)):
            response.message = (
                f"{MAX_REQUESTS} requests wait already, no more are taken: ask again when they "
                "are answered"
            )
            return response
        result = await answer
        response.success = result.people is not None
        response.message = result.message
        if result.people is not None:
            response.people = result.people
        return response

    def _watch_cameras(self) -> None:
        self._interaction.tidy()
        if not self._listening:
            return
        timeout = self.parameters.run().image_timeout
        for camera in self._cameras.values():
            try:
                remarks = camera.check_publishers(timeout)
            except Exception as error:  # of one camera: the others are watched all the same
                due = self._throttle.due(f"{camera.name}: {error}", _REMIND_S)
                remarks = [str(error)] if due else []
            for remark in remarks:
                self.get_logger().warning(f"{camera.name}: {camera.words(remark)}")
            camera.follow_rate(self.parameters.run().max_rate)
            camera.watch_followed(self.parameters.interaction(camera.key).follow_timeout)

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        run = self.parameters.run()
        engines = self._engines
        hardware = engines.device if engines else ""
        message.status.append(
            diagnostics.engine_status(
                f"{self.get_name()}: engines",
                hardware,
                preset=engines.preset.name if engines else self.parameters.engine().preset,
                choice=engines.choice if engines else None,
                problem=self._problem,
                enabled=self._enabled,
                memory=memory_in_use(),
            )
        )
        for camera in self._cameras.values():
            message.status.append(
                diagnostics.camera_status(
                    f"{self.get_name()}: {camera.name}",
                    hardware,
                    camera.statistics.snapshot(),
                    silent_s=camera.silent_s,
                    timeout_s=run.image_timeout,
                    budget_ms=run.latency_budget_ms,
                    source=camera.source,
                )
            )
        self._diagnostics.publish(message)


def main(arguments: list[str] | None = None, *, build_loop: BuildLoop = build_loop) -> int:
    """Run the node until SIGINT, SIGTERM or a shutdown of ROS; returns the exit code."""

    def make() -> BmpNode:
        node = BmpNode(build_loop=build_loop)
        words = sys.argv if arguments is None else []
        ignored = [*remove_ros_args(words)[1:], *node.parameters.remapped(words)]
        if ignored:
            node.get_logger().warning(
                f"arguments without an effect: {', '.join(ignored)}; a parameter is given as "
                "--ros-args -p image_topic:=/camera/image_raw"
            )
        return node

    return run_node(make, arguments)


if __name__ == "__main__":
    sys.exit(main())
