# SPDX-License-Identifier: Apache-2.0
"""Python's fork server, started so that it runs nothing of the current folder.

Processes of the start method ``spawn`` begin with ``python -c``, each of them, which looks for
modules in the current folder first, and that may be somebody's data with a socket.py. Of
``forkserver`` only the server begins so, and it may begin in another folder.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext


def fork_server_context() -> ForkServerContext:
    """The context ``forkserver``, its server running: what workers are to be made with."""
    start_fork_server()
    return get_context("forkserver")


def start_fork_server() -> None:
    """Start the process that workers are forked from, unless it runs, in the folder /.

    The workers change to the folder of the process that wants them, and have the environment that
    it had when the server was started.
    """
    folder, path = os.getcwd(), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.chdir("/")
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(folder)
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
