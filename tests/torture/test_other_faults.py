# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ports that are taken, a projection that is lost, a clock that goes back: told, survived, nothing lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.support.faults import UnderLoad
from tests.support.orthanc import PLUGIN, RealOrthanc
from tests.support.plugin_scripts import write_script
from tests.support.ports import is_listening
from tests.support.waiting import wait_until

DONE = (0x0000, 201)


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Somebody else listens there."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


# --- ports ---


@pytest.mark.parametrize("name", ["DIMSE", "DICOMweb"])
def test_a_port_of_ours_that_is_taken_is_opened_when_it_is_free(
    suite: str, tmp_path: Path, name: str
) -> None:
    with UnderLoad(suite, tmp_path) as load:
        orthanc = load.orthanc
        ours, other = orthanc.ups_dicom_port, orthanc.ups_http_port
        port, open_one = (ours, other) if name == "DIMSE" else (other, ours)
        orthanc.stop()
        begun = len(orthanc.log_text())
        with taken(port):
            orthanc.launch()
            assert "in use" in load.logs(f"Cannot listen for {name}", begun)
            wait_until(lambda: is_listening(open_one), "the other port is open", 30)
        wait_until(lambda: is_listening(port), "the port is open", 30)
        assert load.create() == DONE
        load.goes_on()


def test_an_orthanc_whose_http_port_is_taken_ends_by_itself(suite: str, tmp_path: Path) -> None:
    """That is Orthanc's way; our part is not to hold it up, and to lose nothing."""
    with UnderLoad(suite, tmp_path) as load:
        load.orthanc.stop()
        with taken(load.orthanc.http_port):
            load.orthanc.launch()
            assert load.orthanc.wait(30) != 0
        load.orthanc.start()
        load.goes_on()


# --- projection ---


def projection_of(orthanc: RealOrthanc) -> Path:
    return orthanc.folder / "data" / "orthanc-ups.sqlite"


def spoil(file: Path) -> None:
    with file.open("r+b") as found:
        size = file.stat().st_size
        found.write(b"garbage " * (size // 8))


def delete(file: Path) -> None:
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()


def cut(file: Path) -> None:
    with file.open("r+b") as found:
        found.truncate(file.stat().st_size // 2)


DAMAGES = [spoil, delete, cut]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_a_projection_that_is_damaged_while_it_is_down_is_made_anew(
    suite: str, tmp_path: Path, damage: object
) -> None:
    assert callable(damage)
    with UnderLoad(suite, tmp_path) as load:
        load.orthanc.kill()
        damage(projection_of(load.orthanc))
        load.orthanc.start()
        load.goes_on()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_a_projection_that_is_damaged_while_it_is_used_is_rebuilt(
    suite: str, tmp_path: Path, damage: object
) -> None:
    assert callable(damage)
    with UnderLoad(suite, tmp_path) as load:
        damage(projection_of(load.orthanc))
        url = f"{load.url}/workitems?ProcedureStepState=SCHEDULED&limit=5"
        wait_until(lambda: requests.get(url, timeout=10).status_code == 200, "searches are answered", 60)
        load.goes_on(100)
        assert requests.get(url, timeout=10).status_code == 200
        load.orthanc.kill()
        load.orthanc.start()
        load.goes_on()


# --- clock ---

CLOCK = """
from orthanc_ups.delivery.clock import SystemClock
real = SystemClock.now
SystemClock.now = lambda self: real(self) + float(open({offset!r}).read())
sys.path.insert(0, {plugin!r})
import ups_plugin
"""


def test_a_clock_that_is_set_back_changes_no_order_and_loses_nothing(suite: str, tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    text = CLOCK.format(offset=str(offset), plugin=str(PLUGIN.parent))
    with UnderLoad(suite, tmp_path, script=write_script(tmp_path, text)) as load:
        for seconds in ("-172800", "7200", "-3600"):
            offset.write_text(seconds)
            load.goes_on()
        load.orthanc.kill()
        offset.write_text("-864000")
        load.orthanc.start()
        wait_until(lambda: is_listening(load.orthanc.ups_http_port), "the plugin serves", 30)
        load.goes_on()
