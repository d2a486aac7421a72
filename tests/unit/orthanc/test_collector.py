# SPDX-License-Identifier: AGPL-3.0-or-later
"""Loaded modules are not collected again, and later cycles still are."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from orthanc_ups.orthanc import collector


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Node:
    def __init__(self) -> None:
        self.me = self


def test_what_is_loaded_is_set_aside() -> None:
    loaded = [Node() for _ in range(1_000)]
    collector.settle()
    assert gc.get_freeze_count() >= len(loaded)


def test_cycles_that_come_later_are_collected_by_themselves() -> None:
    collector.settle()
    node = Node()
    reference = weakref.ref(node)
    del node
    garbage = [[] for _ in range(2 * gc.get_threshold()[0])]  # type: ignore[var-annotated]
    assert reference() is None
    assert garbage
