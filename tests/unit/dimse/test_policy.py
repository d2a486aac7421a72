# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whom the DIMSE port admits, and what they may do: as on Orthanc's own port."""

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from orthanc_ups.core import tags
from orthanc_ups.orthanc.modalities import Modality
from orthanc_ups.settings import OrthancSettings, Settings
from tests.support import workitems
from tests.support.dimse_client import NoAssociation, UpsClient
from tests.support.dimse_server import KNOWN, DimseRig

UID = workitems.uid(1)


CLOSED = OrthancSettings(always_allow_echo=False, always_allow_find_worklist=False)


def open_as(rig: DimseRig, calling: str = "SCU", called: str = "ORTHANC") -> Any:
    return UpsClient(rig.port, calling, called)


def test_check_called_aet() -> None:
    with DimseRig(orthanc_settings=OrthancSettings(check_called_aet=True)) as rig:
        with open_as(rig, called="orthanc"):
            pass
        with pytest.raises(NoAssociation, match="rejected 1 1 7"), open_as(rig, called="OTHER"):
            pass


def test_check_called_aet_with_strict_comparison_and_an_aet_of_our_own() -> None:
    strict = OrthancSettings(check_called_aet=True, strict_aet_comparison=True)
    with DimseRig(Settings(aet="UPS"), strict) as rig:
        with open_as(rig, called="UPS"):
            pass
        for called in ("ups", "ORTHANC"):
            with pytest.raises(NoAssociation, match="rejected 1 1 7"), open_as(rig, called=called):
                pass


def test_an_unknown_ae_is_rejected_if_nothing_is_always_allowed() -> None:
    with DimseRig(orthanc_settings=CLOSED) as rig:
        with pytest.raises(NoAssociation, match="rejected 1 1 3"), open_as(rig, "STRANGER"):
            pass
        with open_as(rig) as client:
            assert client.echo().code == 0
            assert client.create(workitems.minimal(), UID).code == 0


def test_an_unknown_ae_may_echo_but_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with DimseRig(orthanc_settings=OrthancSettings(always_allow_find_worklist=False)) as rig:
        with open_as(rig, "STRANGER") as client:
            assert client.echo().code == 0
            refusals = [
                client.create(workitems.minimal(), UID),
                client.get(UID),
                client.change_state(UID, "IN PROGRESS", "1.2.3"),
                client.find({tags.STATE: {"vr": "CS"}})[-1],
            ]
        assert {(refusal.code, refusal.comment) for refusal in refusals} == {
            (0x0124, "AE title STRANGER is not in DicomModalities")
        }
        assert not rig.worklist.commands
        assert "STRANGER at 127.0.0.1" in caplog.text


def test_an_unknown_ae_may_query_worklists_if_orthanc_says_so() -> None:
    allowing = msgspec.structs.replace(CLOSED, always_allow_find_worklist=True)
    with DimseRig(orthanc_settings=allowing) as rig, open_as(rig, "STRANGER") as client:
        assert client.find({tags.STATE: {"vr": "CS"}})[-1].code == 0
        assert client.echo().code == 0x0124
        assert client.create(workitems.minimal(), UID).code == 0x0124


def test_allow_flags_of_the_modality_count() -> None:
    limited = replace(KNOWN, allow_find_worklist=False, allow_echo=False)
    with DimseRig(orthanc_settings=CLOSED, modalities=[limited]) as rig, open_as(rig) as client:
        assert client.echo().code == 0x0124
        refused = client.find({tags.STATE: {"vr": "CS"}})[-1]
        assert (refused.code, refused.comment) == (0x0124, "C-FIND is not allowed for SCU")
        assert client.create(workitems.minimal(), UID).code == 0


@pytest.mark.parametrize(
    ("hosts", "is_welcome"),
    [
        (["127.0.0.1"], True),
        (["192.0.2.7"], False),
        (["192.0.2.7", "127.0.0.1"], True),
        (["localhost"], True),
        (["::ffff:127.0.0.1"], True),
        (["no-such-host.invalid"], False),
    ],
)
def test_check_modality_host(hosts: list[str], is_welcome: bool) -> None:
    entries = [Modality(host, "SCU", host, 104) for host in hosts]
    with DimseRig(orthanc_settings=OrthancSettings(check_modality_host=True), modalities=entries) as rig:
        with open_as(rig) as client:
            answer = client.create(workitems.minimal(), UID)
        assert answer.code == (0 if is_welcome else 0x0124)
        assert is_welcome or answer.comment == "127.0.0.1 is not the host of SCU"
        assert rig.seen == (["SCU"] if is_welcome else [])


def test_delivery_hears_of_known_aes_that_open_an_association_or_echo(rig: DimseRig) -> None:
    with open_as(rig) as client:
        client.echo()
    with open_as(rig, "STRANGER"):
        pass
    rig.wait_for_associations(0)
    assert rig.seen == ["SCU", "SCU"]


def test_an_orthanc_that_does_not_say_whom_it_knows_keeps_nobody_waiting() -> None:
    async def never(ae_title: str) -> tuple[Modality, ...]:
        await asyncio.sleep(60)
        return ()

    with DimseRig(Settings(association_handshake_timeout=0.1), CLOSED) as rig:
        rig.modalities.lookup = never  # type: ignore[method-assign]
        with open_as(rig) as client:
            assert client.echo().code == 0
        with pytest.raises(NoAssociation, match="rejected 2 3 1"), open_as(rig, "STRANGER"):
            pass


def test_a_modality_that_is_added_later_is_let_in(rig: DimseRig) -> None:
    with open_as(rig, "LATER") as client:
        assert client.create(workitems.minimal(), UID).code == 0x0124
        rig.modalities.entries.append(Modality("later", "LATER", "127.0.0.1", 104))
        assert client.create(workitems.minimal(), UID).code == 0
