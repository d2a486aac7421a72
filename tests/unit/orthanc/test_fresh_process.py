# SPDX-License-Identifier: AGPL-3.0-or-later
"""A script that is loaded a second time in a process replaces the process (on a real Orthanc: acceptance)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_ups.orthanc import fresh_process

Replaced = list[tuple[str, list[bytes], str | None]]


class _Gone(BaseException):
    """The process was replaced."""


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replaced]:
    """What was started instead: program, command, and the mark in its environment."""
    calls: Replaced = []

    def execv(program: str, command: list[bytes]) -> None:
        calls.append((program, command, os.environ.get(fresh_process.MARK)))
        raise _Gone

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.delenv(fresh_process.MARK, raising=False)
    yield calls
    os.environ.pop(fresh_process.MARK, None)


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """A folder like /proc/self."""
    (tmp_path / "fd").mkdir()
    (tmp_path / "Orthanc").touch()
    (tmp_path / "exe").symlink_to(tmp_path / "Orthanc")
    (tmp_path / "cmdline").write_bytes(b"Orthanc\0--verbose\0\0/etc/orthanc.json\0")
    return tmp_path


def test_the_first_time_nothing_happens(replaced: Replaced, process: Path) -> None:
    lines: list[str] = []
    fresh_process.ensure(lines.append, process)
    assert (replaced, lines) == ([], [])
    assert os.environ[fresh_process.MARK] == str(os.getpid())


def test_the_second_time_the_same_command_takes_over(replaced: Replaced, process: Path) -> None:
    lines: list[str] = []
    fresh_process.ensure(lines.append, process)
    with pytest.raises(_Gone):
        fresh_process.ensure(lines.append, process)
    command = [b"Orthanc", b"--verbose", b"", b"/etc/orthanc.json"]
    assert replaced == [(str(process / "Orthanc"), command, None)], "the new process begins without a mark"
    assert "reset" in lines[0]


def test_a_mark_of_another_process_means_nothing(
    replaced: Replaced, process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fresh_process.MARK, str(os.getppid()))
    fresh_process.ensure(pytest.fail, process)
    assert replaced == []


def test_no_open_file_is_handed_on(replaced: Replaced, process: Path) -> None:
    fresh_process.ensure(str, process)
    reading, writing = os.pipe()
    try:
        os.set_inheritable(writing, True)
        for number in (reading, writing, 1_000_000):  # the last one is closed meanwhile
            (process / "fd" / str(number)).touch()
        with pytest.raises(_Gone):
            fresh_process.ensure(str, process)
        assert not os.get_inheritable(writing)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_program_that_was_removed_is_still_started(replaced: Replaced, process: Path) -> None:
    (process / "Orthanc").unlink()
    fresh_process.ensure(str, process)
    with pytest.raises(_Gone):
        fresh_process.ensure(str, process)
    assert replaced[0][0] == str(process / "exe")


def test_what_cannot_be_replaced_ends_with_a_line_that_says_why(replaced: Replaced, tmp_path: Path) -> None:
    lines: list[str] = []
    fresh_process.ensure(lines.append, tmp_path)
    with pytest.raises(SystemExit):
        fresh_process.ensure(lines.append, tmp_path / "nowhere")
    assert "cannot be restarted" in lines[-1]
    assert replaced == []
