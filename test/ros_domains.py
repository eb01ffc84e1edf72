# SPDX-License-Identifier: Apache-2.0
"""DDS domains for tests: each is used once as long as there are others, and left empty.

A participant that lives on meets the next test in its domain, whose node has the same name: DDS
then answers questions about that name with what the dead node has, which is nothing.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bmp_ros.demo.processes import private_domain

_DOMAINS = range(1, 101)  # those of ROS's domain_coordinator
_IN_TURN = itertools.cycle(random.sample(_DOMAINS, len(_DOMAINS)))
_LIMIT_S = 20.0
_PARTICIPANTS = 60
"""Far more than a test has at a time."""


@contextmanager
def claimed_domain() -> Iterator[int]:
    """Id of a DDS domain that no other test run on this machine uses, also set in the environment.

    Contexts and processes that a test starts are in it and see only this machine. AssertionError
    when some of them are there in the end.
    """
    import domain_coordinator

    with domain_coordinator.domain_id(_next_domain) as domain, private_domain(domain):
        yield int(domain)
        require_empty(int(domain))


def require_empty(domain: int) -> None:
    """AssertionError that says who takes part in a domain; garbage is collected first."""
    until = time.monotonic() + _LIMIT_S
    while sockets := _sockets_in(domain):
        gc.collect()  # nodes and what they own refer to each other
        if getattr(sys, "last_value", None) is not None:
            return  # the test has failed, and its traceback refers to its nodes
        # Looked at again: the machine may have stood still since.
        if time.monotonic() > until and (sockets := _sockets_in(domain)):
            who = ", ".join(sorted({_owner(inode) for inode in sockets}))
            raise AssertionError(f"DDS participants live on in domain {domain}: {who}")
        time.sleep(0.01)


def _next_domain() -> int:
    for domain in itertools.islice(_IN_TURN, len(_DOMAINS)):
        if not _sockets_in(domain):
            return domain
    raise RuntimeError("there are DDS participants in all domains from 1 to 100")


def _sockets_in(domain: int) -> set[str]:
    """Inodes of the UDP sockets at the ports of a domain's participants, of any process.

    The ports are those of the RTPS specification 2.5, 9.6.2.3, which Fast DDS and Cyclone DDS
    follow: two for all, two more for each participant. Not the rest of a domain's 250: where the
    system's own range begins early, other programs have sockets there. Empty where there is no
    Linux.
    """
    first = 7400 + 250 * domain
    ports = {first, first + 1, *range(first + 10, first + 12 + 2 * _PARTICIPANTS)}
    found = set()
    for table in (Path("/proc/net/udp"), Path("/proc/net/udp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) in ports:
                found.add(fields[9])
    return found


def _owner(inode: str) -> str:
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) != f"socket:[{inode}]":
                continue
            command = (descriptor.parents[1] / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended, or is another user's
            continue
        pid = int(descriptor.parts[2])
        return "this process" if pid == os.getpid() else f"process {pid} ({command.strip()})"
    return "another user's process"
