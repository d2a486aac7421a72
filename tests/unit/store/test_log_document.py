# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an AE's log of global acts keeps."""

from __future__ import annotations

import orjson
import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.mechanisms import Mechanisms
from orthanc_ups.core.numbers import Numbers
from orthanc_ups.core.subscriptions import ActKind, GlobalAct, Log
from orthanc_ups.store.documents import UnreadableDocument, decode_log, encode_log
from orthanc_ups.worklist.subscriptions import Subscriptions
from tests.support import workitems


def filtered(mechanisms: Mechanisms) -> Log:
    identifier = {tags.LABEL: element("LO", '""')}
    act = GlobalAct(3, ActKind.NO_LOCK, 0, True, identifier, Numbers(), 1.5, mechanisms)
    return Log("SUB1", (act,), 1)


@pytest.mark.parametrize("mechanisms", [Mechanisms.NONE, Mechanisms.EMPTY, ~Mechanisms.NONE])
def test_a_filter_matches_the_same_after_a_restart(mechanisms: Mechanisms) -> None:
    log = filtered(mechanisms)
    assert decode_log(encode_log(log)) == log
    subscriptions = Subscriptions()
    subscriptions.keep(decode_log(encode_log(log)), "1")
    unlabelled = workitems.changed(workitems.stored(), **{f"t{tags.LABEL}": element("LO")})
    assert subscriptions.matching_filters(unlabelled) == ((3,) if Mechanisms.EMPTY in mechanisms else ())


def test_a_document_of_an_earlier_version_has_no_mechanisms() -> None:
    document = orjson.loads(encode_log(filtered(Mechanisms.NONE)))
    assert "mechanisms" not in document["acts"][0]


def test_an_unknown_mechanism_is_not_passed_over() -> None:
    document = orjson.loads(encode_log(filtered(Mechanisms.EMPTY)))
    document["acts"][0]["mechanisms"] = ["telepathic"]
    with pytest.raises(UnreadableDocument, match="telepathic"):
        decode_log(orjson.dumps(document))


def test_a_stored_filter_without_a_key_of_a_ups_does_not_become_one_for_everything() -> None:
    act = GlobalAct(3, ActKind.NO_LOCK, 0, True, {"00080070": element("LO", "ACME")}, Numbers())
    subscriptions = Subscriptions()
    subscriptions.keep(Log("SUB1", (act,), 1), "1")
    assert subscriptions.matching_filters(workitems.stored()) == ()
