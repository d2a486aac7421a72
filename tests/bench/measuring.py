# SPDX-License-Identifier: AGPL-3.0-or-later
"""Processes of the bench: servers, and clients that measure once and print their result as JSON."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tests.support.orthanc import CHECKOUT, NATIVE

_P = ParamSpec("_P")
_T = TypeVar("_T")
_PATH = f"import sys; sys.path[:0] = [{str(CHECKOUT)!r}, {str(CHECKOUT / 'plugin')!r}]; "


def _run(module: str) -> str:
    return f"{_PATH}import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"


@contextmanager
def server(module: str, suite: str, *arguments: str) -> Iterator[int]:
    """A floor, run by the very Python that Orthanc of the suite embeds; gives its port."""
    command = [str(NATIVE), "python", "--suite", suite, "-c", _run(module), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def run_client(function: Callable[_P, Coroutine[Any, Any, _T]], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Have a client run a function of its module in a process of its own; what it returned, by way of JSON.

    The arguments are given by keyword, and are JSON too.
    """
    assert not args, "arguments are given by keyword"
    command = [sys.executable, "-c", _run(function.__module__), function.__name__, json.dumps(kwargs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: _T = json.loads(done.stdout.splitlines()[-1])
    return result


def answer(*functions: Callable[..., Coroutine[Any, Any, Any]]) -> None:
    """In a client: run the function that ``run_client`` names, and print what it returns."""
    name, arguments = sys.argv[1:3]
    function = next(function for function in functions if function.__name__ == name)
    print(json.dumps(asyncio.run(function(**json.loads(arguments)))))


LOOP = "ups"
"""What the thread of the plugin's loop is called."""


def spent(pid: int) -> dict[str, float]:
    """Seconds that a process has spent on processors: its thread named ``LOOP``, and all; nothing for process 0."""
    result: dict[str, float] = {}
    for thread in Path(f"/proc/{pid}/task").iterdir() if pid else ():
        with suppress(FileNotFoundError):  # the thread has ended
            seconds = int((thread / "schedstat").read_text().split()[0]) / 1e9
            result["process"] = result.get("process", 0.0) + seconds
            if (thread / "comm").read_text().strip() == LOOP:
                result["loop"] = result.get("loop", 0.0) + seconds
    return result


def best(attempts: Sequence[float]) -> float:
    """Of several attempts on a machine that others use as well, the one that they disturbed least."""
    return max(attempts)
