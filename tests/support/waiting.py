# SPDX-License-Identifier: AGPL-3.0-or-later
"""Waiting for another process."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 180.0
"""Seconds until a wait fails: enough for a very busy machine. A wait that succeeds ends at once."""


def wait_until(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    timeout: float = PATIENCE,
    interval: float = 0.02,
) -> T:
    """Evaluate the condition repeatedly until it is true, and return its value.

    Args:
        condition: cheap to ask; what it raises goes to the caller.
        what: what is waited for, for the error; a function is called when there is an error.
        timeout: seconds.
        interval: seconds between two questions.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what() if callable(what) else what}")
        time.sleep(interval)
    return answer
