# SPDX-License-Identifier: AGPL-3.0-or-later
"""The modalities of a real Orthanc, however they are spelled and wherever they are kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import requests

from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.orthanc.modalities import Modality, OrthancModalities
from tests.contract.stores import WITHOUT_PLUGINS, asynchronous
from tests.support.orthanc import RealOrthanc
from tests.support.waiting import wait_until
from tests.support.watched_loopback import WatchedLoopback

SPELLED = {
    "short": ["SHORT", "127.0.0.1", 104],
    "with-manufacturer": ["MAKER", "host.example", 11112, "GE"],
    "port-as-text": ["TEXT", "127.0.0.1", "4242"],
    "long": {"AET": "Long Title", "Host": "10.0.0.1", "Port": 2762, "UseDicomTls": True, "LocalAet": "ME",
             "Timeout": 7, "AllowEcho": False, "AllowFindWorklist": False},
    "again": {"AET": "SHORT", "Host": "127.0.0.2", "Port": 105},
    "padded": [" PADDED  ", "127.0.0.1", 106],
}  # fmt: skip


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return WITHOUT_PLUGINS | {"DicomModalities": SPELLED}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def modalities(
    orthanc: RealOrthanc, *, strict: bool = False, **options: Any
) -> AsyncIterator[OrthancModalities]:
    async with Loopback(orthanc.base_url) as loopback:
        yield OrthancModalities(loopback, AeTitles(strict=strict), **options)


def put(orthanc: RealOrthanc, name: str, entry: dict[str, Any]) -> None:
    requests.put(f"{orthanc.base_url}/modalities/{name}", json=entry, timeout=60).raise_for_status()


def delete(orthanc: RealOrthanc, name: str) -> None:
    requests.delete(f"{orthanc.base_url}/modalities/{name}", timeout=60).raise_for_status()


@asynchronous
async def test_every_spelling_of_the_configuration_is_understood(orthanc: RealOrthanc) -> None:
    async with modalities(orthanc) as cache:
        assert cache.by_ae_title("SHORT") == ()
        await cache.refresh()
        assert set(cache.by_ae_title("SHORT")) == {
            Modality("short", "SHORT", "127.0.0.1", 104),
            Modality("again", "SHORT", "127.0.0.2", 105),
        }
        assert cache.by_ae_title("MAKER") == (Modality("with-manufacturer", "MAKER", "host.example", 11112),)
        assert cache.by_ae_title("TEXT") == (Modality("port-as-text", "TEXT", "127.0.0.1", 4242),)
        assert cache.by_ae_title("Long Title") == (
            Modality("long", "Long Title", "10.0.0.1", 2762, True, "ME", 7.0, False, False),
        )


@asynchronous
async def test_padding_never_counts_and_case_only_if_orthanc_is_strict(orthanc: RealOrthanc) -> None:
    async with modalities(orthanc) as cache, modalities(orthanc, strict=True) as strict:
        for lookups in (cache, strict):
            assert [modality.name for modality in await lookups.lookup("PADDED ")] == ["padded"]
            assert [modality.name for modality in await lookups.lookup(" TEXT\0")] == ["port-as-text"]
        assert [modality.name for modality in await cache.lookup("long title")] == ["long"]
        assert await strict.lookup("long title") == ()


@asynchronous
async def test_an_unknown_title_asks_orthanc_even_if_the_view_is_new(orthanc: RealOrthanc) -> None:
    clock = Clock()
    async with modalities(orthanc, clock=clock) as cache:
        assert await cache.lookup("LATER") == ()
        put(orthanc, "later", {"AET": "LATER", "Host": "127.0.0.1", "Port": 107})
        assert [modality.port for modality in await cache.lookup("LATER")] == [107]
        delete(orthanc, "later")
        clock.now += 29.0
        assert await cache.lookup("LATER")
        clock.now += 1.0
        assert await cache.lookup("LATER") == ()


@asynchronous
async def test_many_unknown_titles_at_once_ask_one_question(orthanc: RealOrthanc) -> None:
    async with WatchedLoopback(orthanc.base_url) as loopback:
        cache = OrthancModalities(loopback, AeTitles())
        for question in (1, 2):
            answers = await asyncio.gather(*(cache.lookup(f"STRANGER{number}") for number in range(50)))
            assert answers == [()] * 50
            assert len(loopback.paths) == question


@asynchronous
async def test_a_change_that_orthanc_tells_is_seen_without_a_question(orthanc: RealOrthanc) -> None:
    async with modalities(orthanc) as cache:
        keeping = asyncio.create_task(cache.keep_fresh())
        await asyncio.to_thread(wait_until, lambda: cache.by_ae_title("SHORT"), "the first view")
        put(orthanc, "told", {"AET": "TOLD", "Host": "127.0.0.1", "Port": 108})
        cache.changed()
        await asyncio.to_thread(wait_until, lambda: cache.by_ae_title("TOLD"), "the changed view")
        keeping.cancel()
        delete(orthanc, "told")


@asynchronous
async def test_without_an_answer_the_last_view_holds_and_is_warned_of_once(
    orthanc: RealOrthanc, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with WatchedLoopback(orthanc.base_url) as loopback:
        cache = OrthancModalities(loopback, AeTitles(), clock=clock)
        assert await cache.lookup("TEXT")
        loopback.is_away = True
        for _ in range(2):
            clock.now += 31.0
            assert await cache.lookup("TEXT")
    assert len([record for record in caplog.messages if "Cannot refresh DicomModalities" in record]) == 1


def test_modalities_in_orthancs_database_are_seen(suite: str) -> None:
    async def ports(orthanc: RealOrthanc) -> list[int]:
        async with modalities(orthanc) as cache:
            return [modality.port for modality in await cache.lookup("KEPT")]

    with RealOrthanc(suite, WITHOUT_PLUGINS | {"DicomModalitiesInDatabase": True}) as running:
        put(running, "kept", {"AET": "KEPT", "Host": "127.0.0.1", "Port": 109})
        assert asyncio.run(ports(running)) == [109]
        running.stop()
        running.start()
        assert asyncio.run(ports(running)) == [109]
