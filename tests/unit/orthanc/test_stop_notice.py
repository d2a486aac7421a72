# SPDX-License-Identifier: AGPL-3.0-or-later
"""The plugin notices that Orthanc restores its signal handlers, which is how it begins to stop."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from orthanc_ups.orthanc.stop_notice import catches, goes_on, told_to_stop

STATUS = "Name:\tOrthanc\nSigIgn:\t0000000000001000\nSigCgt:\t{:016x}\nCapInh:\t0000000000000000\n"
CATCHING, LETTING_GO = STATUS.format(1 << (signal.SIGTERM - 1) | 1), STATUS.format(1)


def test_a_signal_that_a_process_handles_is_seen_in_its_status() -> None:
    assert catches(CATCHING)
    assert not catches(LETTING_GO)
    with pytest.raises(ValueError):
        catches("Name:\tOrthanc\n")  # a kernel that does not tell


def test_a_signal_that_this_process_handles_is_seen() -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        assert catches(Path("/proc/self/status").read_text(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not catches(Path("/proc/self/status").read_text(), signal.SIGUSR2)


def test_the_stop_is_noticed_once_the_handlers_were_there_and_are_gone(tmp_path: Path) -> None:
    status = tmp_path / "status"

    async def orthanc_lives() -> list[bool]:
        noticing = asyncio.create_task(told_to_stop(status, 0.0, 0.0))
        states = []
        for text in (LETTING_GO, CATCHING, LETTING_GO):
            status.write_text(text)
            for _ in range(10):
                await asyncio.sleep(0)
            states.append(noticing.done())
        return states

    assert asyncio.run(orthanc_lives()) == [False, False, True]


def test_until_the_handlers_have_been_seen_the_looks_are_close_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop right after the start gives handlers back that were there for a moment only."""
    status = tmp_path / "status"
    statuses = iter([LETTING_GO, CATCHING, LETTING_GO, LETTING_GO, LETTING_GO])
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        status.write_text(next(statuses))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(told_to_stop(status, every=0.1, at_first=0.01))
    assert pauses == [0.01, 0.01, 0.1, 0.1, 0.1]


def test_a_moment_without_handlers_is_no_stop(tmp_path: Path) -> None:
    """SIGHUP with an unchanged configuration: Orthanc lets go of them and takes them again."""
    status = tmp_path / "status"

    async def orthanc_lives() -> bool:
        status.write_text(CATCHING)
        noticing = asyncio.create_task(told_to_stop(status, 0.0, 0.0))
        for text in (CATCHING, LETTING_GO, CATCHING, LETTING_GO, CATCHING):
            status.write_text(text)
            for _ in range(2):
                await asyncio.sleep(0)
        return noticing.cancel()

    assert asyncio.run(orthanc_lives())


def test_a_system_without_proc_is_never_noticed(tmp_path: Path) -> None:
    async def wait() -> bool:
        noticing = asyncio.create_task(told_to_stop(tmp_path / "nothing", 0.0))
        for _ in range(20):
            await asyncio.sleep(0)
        return noticing.cancel()

    assert asyncio.run(wait())


def test_a_look_that_fails_is_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without free file descriptors /proc cannot be looked at; the process runs all the same."""
    status = tmp_path / "status"

    async def orthanc_lives() -> bool:
        status.write_text(CATCHING)
        noticing = asyncio.create_task(told_to_stop(status, 0.0, 0.0))
        for text in (CATCHING, "", "SigCgt:\tnonsense\n"):
            status.write_text(text)
            for _ in range(20):
                await asyncio.sleep(0)
        status.unlink()
        for _ in range(20):
            await asyncio.sleep(0)
        return noticing.cancel()

    assert asyncio.run(orthanc_lives())


def test_an_orthanc_that_handles_its_signals_again_goes_on(tmp_path: Path) -> None:
    status = tmp_path / "status"

    async def orthanc_lives() -> tuple[bool, bool]:
        status.write_text(LETTING_GO)
        noticing = asyncio.create_task(goes_on(status, 0.0))
        for _ in range(50):
            await asyncio.sleep(0)
        before = noticing.done()
        status.write_text(CATCHING)
        for _ in range(50):
            await asyncio.sleep(0)
        return before, noticing.done()

    assert asyncio.run(orthanc_lives()) == (False, True)
