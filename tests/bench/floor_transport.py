# SPDX-License-Identifier: AGPL-3.0-or-later
"""A harder floor: the plugin's own DIMSE port before a worklist that only answers success."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from orthanc_ups.core import statuses
from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.commands import Command
from orthanc_ups.core.dataset import DataSet
from orthanc_ups.core.matching import Query
from orthanc_ups.core.outcome import WHOLE, Outcome, Page, Paging
from orthanc_ups.dimse.data_sets import Codec
from orthanc_ups.dimse.policy import Policy, Resolver
from orthanc_ups.dimse.scp import DimseServer
from orthanc_ups.dimse.services import Services
from orthanc_ups.orthanc.descriptors import Descriptors
from orthanc_ups.orthanc.modalities import Modality, OrthancModalities
from orthanc_ups.orthanc.refusal_log import RefusalLog
from orthanc_ups.settings import OrthancSettings, Settings
from tests.support.workitems import full, stored

_WORKITEM = stored(base=full())


class _Nothing:
    """A worklist in name only."""

    async def execute(self, command: Command) -> Outcome:
        return Outcome(statuses.SUCCESS, command.uid)

    async def retrieve(self, uid: str) -> DataSet:
        return _WORKITEM

    def document_of(self, uid: str) -> bytes:
        raise NotImplementedError

    def text_of(self, uid: str) -> bytes:
        raise NotImplementedError

    async def find(self, query: Query) -> AsyncIterator[list[DataSet]]:
        yield []

    async def search(self, query: Query, paging: Paging = WHOLE) -> Page[DataSet]:
        return Page((), 0, 0)

    async def search_texts(self, query: Query, paging: Paging = WHOLE) -> Page[bytes]:
        return Page((), 0, 0)


class _Everybody(OrthancModalities):
    """Knows every AE."""

    def __init__(self) -> None:
        """Knows them without Orthanc."""

    def by_ae_title(self, ae_title: str) -> tuple[Modality, ...]:
        return (Modality("any", ae_title, "127.0.0.1", 104),)

    async def lookup(self, ae_title: str) -> tuple[Modality, ...]:
        return self.by_ae_title(ae_title)


async def _serve() -> None:
    settings = Settings(dicom_port=0, bind_address="127.0.0.1")
    orthanc_settings = OrthancSettings()
    policy = Policy(settings, orthanc_settings, _Everybody(), Resolver(), AeTitles())
    refusals = RefusalLog()
    services = Services(_Nothing(), policy, _ignore, refusals)
    server = DimseServer(
        settings,
        policy,
        services,
        Codec(settings, orthanc_settings),
        _ignore,
        Descriptors(4096).share(),
        refusals,
    )
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


def _ignore(_: str) -> None:
    return None


if __name__ == "__main__":
    asyncio.run(_serve())
