# SPDX-License-Identifier: AGPL-3.0-or-later
"""SOP classes beside those of UPS, which other parts serve on the DIMSE port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orthanc_ups.core import statuses
from orthanc_ups.core.statuses import STEP_MAY_NOT_BE_UPDATED, UpsError
from orthanc_ups.dimse.message import CommandField
from orthanc_ups.dimse.services import Exchange, FurtherService
from orthanc_ups.modality.performed_steps import PERFORMED_STEP, RETRIEVE
from tests.support.dimse_client import NoAssociation, UpsClient
from tests.support.dimse_server import DimseRig
from tests.support.modality import ModalityClient, begun

UID = "2.25.31"


async def _serve(exchange: Exchange) -> None:
    if exchange.field == CommandField.N_SET:
        raise UpsError(STEP_MAY_NOT_BE_UPDATED)
    await exchange.answer(statuses.SUCCESS, UID, {"00100020": {"vr": "LO", "Value": ["P1"]}})


@pytest.fixture(scope="module")
def rig() -> Iterator[DimseRig]:
    fields = frozenset({CommandField.N_CREATE, CommandField.N_SET})
    service = FurtherService(fields, frozenset({PERFORMED_STEP}), _serve)
    with DimseRig(further={PERFORMED_STEP: service}) as running:
        yield running


@pytest.fixture
def client(rig: DimseRig) -> Iterator[ModalityClient]:
    with ModalityClient(rig.port, "SCU") as connected:
        yield connected


def test_a_class_that_is_served_is_accepted_and_another_is_not(client: ModalityClient) -> None:
    assert PERFORMED_STEP in client.accepted
    assert RETRIEVE not in client.accepted


def test_without_such_a_service_the_class_is_not_accepted() -> None:
    with DimseRig() as plain, pytest.raises(NoAssociation):
        UpsClient(plain.port, "SCU", contexts=(PERFORMED_STEP,)).__enter__()


def test_an_answer_carries_the_class_of_the_request(client: ModalityClient) -> None:
    answer = client.begin(UID, begun())
    assert (answer.code, answer.uid, answer.command["AffectedSOPClassUID"]) == (0, UID, PERFORMED_STEP)
    assert answer.attributes["00100020"]["Value"] == ["P1"]


def test_a_refusal_carries_its_error_id(client: ModalityClient) -> None:
    answer = client.report(UID, {"00400252": {"vr": "CS", "Value": ["COMPLETED"]}})
    assert (answer.code, answer.command["ErrorID"]) == (0x0110, 0xA710)


def test_a_ups_cannot_be_created_on_its_context(client: ModalityClient) -> None:
    answer = client.create(begun(), UID, on=PERFORMED_STEP)
    assert answer.code == 0x0118


def test_a_stranger_may_not(rig: DimseRig) -> None:
    with ModalityClient(rig.port, "STRANGER") as stranger:
        assert stranger.begin(UID, begun()).code == 0x0124
