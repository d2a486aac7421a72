# SPDX-License-Identifier: AGPL-3.0-or-later
"""A thread with an asyncio loop: one owns all state of the worklist, another the lease of a cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")


class LoopThread:
    """Runs an asyncio loop in a thread of its own, and accepts work from other threads."""

    def __init__(self, name: str, on_thread: Callable[[], None] = lambda: None) -> None:
        self.loop = asyncio.new_event_loop()
        self._on_thread = on_thread
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; ``on_thread`` is called there first."""
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._on_thread()
        try:
            self.loop.run_forever()
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        """Cancel all tasks, so that none is left when Python is finalized."""
        pending = asyncio.all_tasks(self.loop)
        for task in pending:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run a coroutine on the loop; for callers in other threads."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def call_soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the loop soon; does nothing once the loop is closed."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *arguments)

    def stop(self, timeout: float) -> bool:
        """Stop the loop and join the thread, within ``timeout`` seconds. True if it ended."""
        if self._thread.is_alive():
            self.call_soon(self.loop.stop)
            self._thread.join(timeout)
        return not self._thread.is_alive()
