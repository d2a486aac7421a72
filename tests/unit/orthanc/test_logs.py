# SPDX-License-Identifier: AGPL-3.0-or-later
"""What reaches Orthanc's log, and what does not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator

import pytest
from pydicom import config
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from orthanc_ups.orthanc import logs


class Sink:
    """Stands for Orthanc's log."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def LogInfo(self, message: str) -> None:
        self.lines.append(("info", message))

    def LogWarning(self, message: str) -> None:
        self.lines.append(("warning", message))

    def LogError(self, message: str) -> None:
        self.lines.append(("error", message))


@pytest.fixture
def sink() -> Iterator[Sink]:
    names = ["orthanc_ups", "pynetdicom", "pydicom", "aiohttp", "asyncio"]
    before = [
        (logger, logger.handlers, logger.propagate, logger.level) for logger in map(logging.getLogger, names)
    ]
    result = Sink()
    with warnings.catch_warnings():
        logs.attach(result)
        yield result
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_each_record_is_one_line_at_its_level(sink: Sink) -> None:
    logger = logging.getLogger("orthanc_ups.somewhere")
    logger.info("read %d", 3)
    logger.warning("first\nsecond")
    logger.error("bad")
    logger.debug("not shown")
    assert sink.lines == [("info", "UPS: read 3"), ("warning", "UPS: first | second"), ("error", "UPS: bad")]


def test_what_is_gathered_comes_in_order_and_before_anything_graver(sink: Sink) -> None:
    handler = logs.attach(sink)
    later: list[Callable[[], None]] = []
    handler.gather(later.append)
    logger = logging.getLogger("orthanc_ups.somewhere")
    logger.info("first")
    logger.info("second")
    assert (sink.lines, len(later)) == ([], 1)
    logger.warning("third")
    logger.info("fourth")
    later[-1]()
    assert [line for _, line in sink.lines] == ["UPS: first", "UPS: second", "UPS: third", "UPS: fourth"]
    logger.info("fifth")
    handler.settle()
    assert sink.lines[-1] == ("info", "UPS: fifth")
    logger.info("sixth")
    assert sink.lines[-1] == ("info", "UPS: sixth")


def test_odd_values_of_a_peer_do_not_fill_the_log(sink: Sink, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(UserWarning), warnings.catch_warnings():
        warnings.simplefilter("error")
        validate_value("UI", "1.2.x", config.WARN)
    logs.attach(sink)
    validate_value("UI", UID("1.2.y"), config.WARN)
    assert not recwarn.list
    assert not sink.lines
