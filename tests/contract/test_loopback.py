# SPDX-License-Identifier: AGPL-3.0-or-later
"""The loopback reaches an Orthanc that requires a password."""

import asyncio
import base64

import pytest

from orthanc_ups.config import read_orthanc_settings
from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.settings import OrthancSettings
from orthanc_ups.store.metadata import OrthancEntries
from orthanc_ups.store.port import StoreUnavailable
from tests.contract.stores import WITHOUT_PLUGINS, each, loaded
from tests.support.orthanc import RealOrthanc


def test_an_orthanc_with_authentication(suite: str) -> None:
    async def use(orthanc_settings: OrthancSettings, password: str) -> int:
        authorization = "Basic " + base64.b64encode(f"operator:{password}".encode()).decode()
        async with Loopback.of(orthanc_settings, authorization) as loopback:
            entries = OrthancEntries(loopback)
            await entries.open()
            await entries.restore(each(()))
            await entries.create("key", b"document")
            return len(await loaded(entries))

    secured = {"AuthenticationEnabled": True, "RegisteredUsers": {"operator": "right"}}
    with RealOrthanc(suite, WITHOUT_PLUGINS | secured) as orthanc:
        orthanc_settings = read_orthanc_settings(orthanc.configuration)
        with pytest.raises(StoreUnavailable, match="401") as error:
            asyncio.run(use(orthanc_settings, "wrong"))
        assert error.value.certain
        assert asyncio.run(use(orthanc_settings, "right")) == 1
