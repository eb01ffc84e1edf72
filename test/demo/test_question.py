# SPDX-License-Identifier: Apache-2.0
"""Questions to services: asked again by a new client, answered once, nothing of them stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from node_harness import LIMIT_S, Lab, wait_for
from rclpy.context import Context
from rclpy.node import Node
from std_srvs.srv import SetBool

from bmp_ros.demo import question as question_module
from bmp_ros.demo.question import Question


@pytest.fixture
def question(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Question:
    monkeypatch.setattr(question_module, "_WAIT_S", 0.2)
    return Question(lab.peer, SetBool, "/set", SetBool.Request(data=True))


def serve(lab: Lab, callback: Callable[..., Any]) -> Any:
    """The service, in a node of its own."""

    def make(context: Context) -> Node:
        node = Node("server", context=context)
        node.create_service(SetBool, "/set", callback)
        return node

    return next(service for service in lab._spin(make).services if service.srv_name == "/set")


def test_it_is_asked_by_new_clients_until_it_is_answered(lab: Lab, question: Question) -> None:
    assert question.answer() is None, "there is no server yet"
    assert question.times_asked == 0
    service = serve(lab, lambda request, response: SetBool.Response(success=request.data))
    really, lost = service.send_response, []

    def send_response(response: Any, header: Any) -> None:
        if len(lost) < 2:
            lost.append(response)
        else:
            really(response, header)

    service.send_response = send_response
    assert wait_for(question.answer, "the third answer").success
    assert len(lost) == 2 and question.times_asked >= 3
    assert len(list(lab.peer.clients)) == question.times_asked
    question.close()
    assert not list(lab.peer.clients)
    assert wait_for(question.answer, "an answer once more").success
    question.close()


def test_an_answer_that_is_only_slow_is_taken(lab: Lab, question: Question) -> None:
    may_answer = threading.Event()
    asked = []

    def callback(request: Any, response: Any) -> Any:
        asked.append(request)
        assert may_answer.wait(LIMIT_S)
        return SetBool.Response(success=True, message=str(len(asked)))

    serve(lab, callback)
    wait_for(lambda: question.answer() is None and question.times_asked == 3, "three questions")
    assert len(asked) == 1
    may_answer.set()
    assert wait_for(question.answer, "the first answer").message == "1"
    question.close()
