# SPDX-License-Identifier: AGPL-3.0-or-later
"""Uploads images with several senders at once, and says how many a second Orthanc took."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path

import aiohttp
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from tests.bench.measuring import answer

_PLACE = "1.2.826.0.1.3680043.10.1999.77777777"
_SERIES = "1.2.826.0.1.3680043.10.1999.88888888"
_STUDY = "1.2.826.0.1.3680043.10.1999.99999999"
_OF_A_SERIES = 100


def _template() -> bytes:
    path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(path, str)
    dataset = pydicom.dcmread(io.BytesIO(Path(path).read_bytes()))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(_PLACE)
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = _SERIES, _STUDY
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


async def upload(url: str, count: int, senders: int, first: int) -> float:
    """POST so many new CT images, numbered from ``first`` on; images a second."""
    template = _template()
    numbers = iter(range(first, first + count))

    async def send(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            series = f"{10_000_000 + number // _OF_A_SERIES}".encode()
            image = template.replace(b"77777777", f"{10_000_000 + number}".encode())
            image = image.replace(b"88888888", series).replace(b"99999999", series)
            async with session.post(f"{url}/instances", data=image) as reply:
                assert reply.status == 200, await reply.text()
                await reply.read()

    async with aiohttp.ClientSession() as session:
        begun = time.monotonic()
        await asyncio.gather(*(send(session) for _ in range(senders)))
        return count / (time.monotonic() - begun)


if __name__ == "__main__":
    answer(upload)
