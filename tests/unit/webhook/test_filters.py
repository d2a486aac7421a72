# SPDX-License-Identifier: AGPL-3.0-or-later
"""Filters of ``Ups.Webhooks``."""

from __future__ import annotations

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.mechanisms import Mechanisms
from orthanc_ups.settings import Webhook
from orthanc_ups.webhook.subscriptions import filter_of


def hook(**keys: str) -> Webhook:
    return Webhook("https://example.org", "HOOK", filter=keys)


def test_a_filter_may_match_empty_and_multiple_values() -> None:
    keys = {"WorklistLabel": '""\\A', "emptyvaluematching": "true", "multiplevaluematching": "true"}
    expected = {tags.WORKLIST_LABEL: element("LO", '""', "A")}, Mechanisms.EMPTY | Mechanisms.MULTIPLE
    assert filter_of(hook(**keys), 0) == expected


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"PatintID": "1"}, "PatintID"),
        ({"PatientID": "1", "Manufacturer": "ACME"}, "Manufacturer"),
        ({"PatientID": "1", "ScheduledProcedureStepStartDateTime": "soon"}, "0040,4005"),
        ({"PatientID": "1", "emptyvaluematching": "perhaps"}, "emptyvaluematching"),
        ({"emptyvaluematching": "true"}, "nothing in it"),
    ],
)
def test_a_key_that_would_be_ignored_is_a_mistake(keys: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named) as mistake:
        filter_of(hook(**keys), 3)
    assert str(mistake.value).startswith('"Ups.Webhooks[3].Filter"')
