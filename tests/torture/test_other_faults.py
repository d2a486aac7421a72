# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ports that are taken, a projection that is lost, a clock that goes back: told, survived, nothing lost."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.support.faults import UnderLoad
from tests.support.orthanc import PLUGIN
from tests.support.plugin_scripts import write_script
from tests.support.ports import is_listening
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.one_suite("ports, clock and search index are those of the machine"),
    pytest.mark.one_store("ports, clock and search index are those of the machine"),
]

DONE = (0x0000, 201)


@contextmanager
def occupied(port: int) -> Iterator[None]:
    """Somebody else listens there."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        yield


# --- ports ---


def test_ports_of_ours_that_are_taken_are_opened_when_they_are_free(load: UnderLoad) -> None:
    orthanc = load.orthanc
    orthanc.kill()
    begun = load.log_size
    with occupied(orthanc.ups_http_port):
        with occupied(orthanc.ups_dicom_port):
            orthanc.launch()
            for name in ("DIMSE", "DICOMweb"):
                assert "in use" in load.logs(f"cannot open the {name} port", begun)
        wait_until(lambda: is_listening(orthanc.ups_dicom_port), "the DIMSE port is open")
    wait_until(lambda: orthanc.health() == 200, "the DICOMweb port is open")
    assert load.create() == DONE
    load.goes_on()


def test_an_orthanc_whose_own_http_port_is_taken_ends_by_itself(load: UnderLoad) -> None:
    """That is Orthanc's way; our part is not to hold it up, and to lose nothing."""
    load.orthanc.kill()
    with occupied(load.orthanc.http_port):
        load.orthanc.launch()
        assert load.orthanc.wait() != 0
    load.orthanc.start()
    load.goes_on()


# --- projection ---


def spoiled(file: Path) -> None:
    with file.open("r+b") as content:
        content.write(b"garbage " * (file.stat().st_size // 8))


def deleted(file: Path) -> None:
    for part in file.parent.glob(f"{file.name}*"):
        part.unlink()


def cut(file: Path) -> None:
    with file.open("r+b") as content:
        content.truncate(file.stat().st_size // 2)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


# What else the file may hold at a start is a unit test (tests/unit/projection/test_file.py).
DAMAGES = pytest.mark.parametrize(
    "damage",
    [
        spoiled,
        deleted,
        pytest.param(cut, marks=pytest.mark.torture),
        pytest.param(emptied, marks=pytest.mark.torture),
    ],
)


def projection_of(load: UnderLoad) -> Path:
    return load.orthanc.folder / "data" / "orthanc-ups.sqlite"


def can_search(load: UnderLoad) -> bool:
    url = f"{load.url}/workitems?ProcedureStepState=SCHEDULED&limit=5"
    return requests.get(url, timeout=60).status_code in (200, 204)


@DAMAGES
def test_a_projection_damaged_while_orthanc_is_down_is_made_anew(
    load: UnderLoad, damage: Callable[[Path], None]
) -> None:
    load.orthanc.kill()
    damage(projection_of(load))
    load.orthanc.start()
    wait_until(lambda: can_search(load), "searches are answered")
    load.goes_on()


@DAMAGES
def test_a_projection_damaged_while_it_is_used_is_rebuilt(
    load: UnderLoad, damage: Callable[[Path], None]
) -> None:
    uid = load.make()
    damage(projection_of(load))
    load.goes_on(100)
    wait_until(lambda: can_search(load), "searches are answered")
    load.retrieve(uid)
    load.crash()
    load.retrieve(uid)


# --- clock ---

CLOCK = """
from orthanc_ups.delivery.port import SystemClock
real = SystemClock.now
SystemClock.now = lambda self: real(self) + float(open({offset!r}).read())
sys.path.insert(0, {plugin!r})
import ups_plugin
"""


def set_clock(offset: Path, seconds: str) -> None:
    """Put in place at once: Orthanc reads the file all the time, and must not find it empty."""
    new = offset.with_suffix(".new")
    new.write_text(seconds)
    new.replace(offset)


def test_a_clock_that_is_set_back_changes_no_order_and_loses_nothing(
    suite: str, store: str, tmp_path: Path
) -> None:
    offset = tmp_path / "offset"
    set_clock(offset, "0")
    script = write_script(tmp_path, CLOCK.format(offset=str(offset), plugin=str(PLUGIN.parent)))
    with UnderLoad(suite, tmp_path, {"Ups": {"Store": store}}, script=script) as load:
        for seconds in ("-172800", "7200", "-3600"):
            set_clock(offset, seconds)
            load.goes_on()
        load.orthanc.kill()
        set_clock(offset, "-864000")
        load.orthanc.start()
        load.goes_on()
