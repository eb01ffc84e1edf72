# SPDX-License-Identifier: Apache-2.0
"""Quality of service: what the node asks for and offers.

A reliable subscription to a best-effort publisher gets nothing at all. A best-effort subscription
gets whatever the transport does not lose, which with large images may be next to nothing. So the
subscription has to be what the publishers are.
"""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

DEPTH = 5
"""Messages that the transport may keep: with 1, a reliable 720p stream loses a third of them."""


def profile(reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE) -> QoSProfile:
    """Volatile, the last `DEPTH` messages: the node's outputs and its camera subscriptions."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=DEPTH,
        reliability=reliability,
        durability=DurabilityPolicy.VOLATILE,
    )


def reliability_for(wanted: str, offered: Iterable[ReliabilityPolicy]) -> ReliabilityPolicy:
    """Return the reliability to subscribe with.

    wanted: ``auto``, ``reliable`` or ``best_effort``. offered: that of each publisher. ``auto`` is
    reliable unless any publisher offers best effort only; so it is without publishers.
    """
    if wanted == "reliable":
        return ReliabilityPolicy.RELIABLE
    if wanted == "best_effort" or ReliabilityPolicy.BEST_EFFORT in offered:
        return ReliabilityPolicy.BEST_EFFORT
    return ReliabilityPolicy.RELIABLE
