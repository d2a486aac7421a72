# SPDX-License-Identifier: AGPL-3.0-or-later
"""Orthanc's callback for worklist queries on its own DICOM port.

It runs on a thread of Orthanc, which may block. It must not raise: the modality would get an empty list with success,
as if there were nothing to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, Final

from ..codecs.corrections import Corrections
from ..codecs.encoded_values import undeclared
from ..core.dataset import DataSet, element, items, values
from ..core.statuses import UpsError
from ..dimse.data_sets import EXPLICIT, Bounds, decode, encode
from ..orthanc.sdk import WorklistAnswersCall, WorklistCallback, WorklistQueryCall
from ..settings import OrthancSettings, Settings
from .orthanc_matcher import extractable
from .scheduled_steps import SCHEDULED_STEP, STATION_AE
from .worklist import WorklistAnswers
from .worklist_folder import WorklistFolder
from .worklist_query import UnusableKey

_log = logging.getLogger("orthanc_ups.modality")
_WITHIN: Final = 20.0  # seconds
_FIND_CLASS: Final = "1.2.840.10008.5.1.4.31"
_PREAMBLE: Final = bytes(128) + b"DICM"

Submit = Callable[[Coroutine[Any, Any, WorklistAnswers]], "Future[WorklistAnswers]"]
"""Runs a coroutine on the worklist's loop."""

Find = Callable[[DataSet], Coroutine[Any, Any, WorklistAnswers]]
"""Answers a query, on the loop."""


def as_file(dataset: DataSet) -> bytes:
    """A DICOM file with this data set (PS3.10 §7.1)."""
    meta: DataSet = {
        "00020002": element("UI", _FIND_CLASS),
        "00020003": element("UI", "2.25.1"),
        "00020010": element("UI", EXPLICIT.uid),
    }
    encoded = encode(meta, EXPLICIT)
    length = encode({"00020000": element("UL", len(encoded))}, EXPLICIT)
    return _PREAMBLE + length + encoded + encode(dataset, EXPLICIT)


def folder_of(orthanc_settings: OrthancSettings) -> WorklistFolder | None:
    """The folder of the worklists plugin, if that is enabled."""
    folder = orthanc_settings.worklists_folder if orthanc_settings.worklists_enabled else ""
    return WorklistFolder(Path(folder)) if folder else None


class WorklistRequests:
    """Answers Orthanc's worklist queries from the workitems, and from the folder of the worklists plugin.

    Attributes:
        find: answers a query from the worklist; None until it is open.
        is_self_test: whether a query is our own test, which is noted; called on Orthanc's thread.
        is_first: False if the worklists plugin was loaded before this one, which then gets no queries.
    """

    def __init__(
        self,
        submit: Submit,
        settings: Settings,
        orthanc_settings: OrthancSettings,
        folder: WorklistFolder | None,
        of_the_site: WorklistCallback | None = None,
        *,
        is_first: bool = True,
    ) -> None:
        """``of_the_site`` is called afterwards with the same arguments: Orthanc accepts one callback of all scripts."""
        self._submit = submit
        self._bounds = Bounds(settings.maximum_nesting)
        self._max_size = settings.maximum_data_set_size
        self._otherwise = undeclared(orthanc_settings.default_encoding)
        self._folder = folder
        self._of_issuer = orthanc_settings.worklists_of_issuer
        self._limit = orthanc_settings.worklists_limit
        self._of_the_site = of_the_site
        self.is_first = is_first
        self.find: Find | None = None
        self.is_self_test: Callable[[DataSet], bool] = lambda _: False

    def __call__(
        self, answers: WorklistAnswersCall, query: WorklistQueryCall, issuer: str, called: str
    ) -> None:
        """Add all answers to a query of the AE title ``issuer``. Never raises."""
        if self._attempt("a self-test", lambda: self._is_self_test(query)):
            return
        complete = self._attempt("the workitems", lambda: self._from_workitems(answers, query, issuer))
        if self._folder is not None:
            folder = self._folder
            complete &= self._attempt(
                "the folder of the worklists plugin",
                lambda: self._from_folder(folder, answers, query, issuer),
            )
        if self._of_the_site is not None:
            of_the_site = self._of_the_site
            complete &= self._attempt(
                "the script of the site", lambda: _done(lambda: of_the_site(answers, query, issuer, called))
            )
        if not complete:
            self._attempt("the worklist", lambda: _done(answers.WorklistMarkIncomplete))

    def _attempt(self, what: str, answer: Callable[[], bool]) -> bool:
        """True if a source has added all of its answers."""
        try:
            return answer()
        except Exception:
            _log.exception("A worklist query cannot be answered from %s: internal error", what)
            return False

    def _is_self_test(self, query: WorklistQueryCall) -> bool:
        return self.is_self_test(self._decoded(query.WorklistGetDicomQuery()))

    # --- workitems ---

    def _from_workitems(self, answers: WorklistAnswersCall, query: WorklistQueryCall, issuer: str) -> bool:
        if self.find is None:
            _log.error("The worklist query of %s is not answered from the workitems: it is not open", issuer)
            return False
        try:
            identifier = self._decoded(query.WorklistGetDicomQuery())
            result = self._submit(self.find(identifier)).result(_WITHIN)
        except UnusableKey as error:
            _log.warning("The worklist query of %s matches nothing: %s", issuer, error)
            return True
        except UpsError as error:
            _log.error("The worklist query of %s is not answered: %s", issuer, error.detail)
            return False
        except FutureTimeoutError:
            _log.error("The worklist query of %s is not answered from the workitems in time", issuer)
            return False
        for answer in result.answers:
            answers.WorklistAddAnswer(query, as_file(extractable(answer, identifier)))
        if result.reason:
            _log.warning("The worklist query of %s is not answered in full: %s", issuer, result.reason)
        _log.info("Worklist query of %s: %d answers from the workitems", issuer, len(result.answers))
        return not result.reason

    def _decoded(self, encoded: bytes) -> DataSet:
        lenient = Corrections(lenient=True)
        return decode(encoded, EXPLICIT, self._bounds, self._max_size, self._otherwise, lenient)

    # --- the worklists plugin ---

    def _from_folder(
        self, folder: WorklistFolder, answers: WorklistAnswersCall, query: WorklistQueryCall, issuer: str
    ) -> bool:
        """Match and answer as the worklists plugin does, with its settings."""
        count = 0
        for content in folder.files():
            if not query.WorklistIsMatch(content) or not self._is_for(content, issuer):
                continue
            if self._limit and count >= self._limit:
                return False
            answers.WorklistAddAnswer(query, content)
            count += 1
        return True

    def _is_for(self, content: bytes, issuer: str) -> bool:
        """With ``Worklists.FilterIssuerAet`` a modality only gets what is scheduled for its AE title."""
        if not self._of_issuer:
            return True
        try:
            step = next(iter(items(self._decoded(content), SCHEDULED_STEP)), {})
        except UpsError:
            return False
        return any(str(title).strip() == issuer.strip() for title in values(step, STATION_AE))


def _done(call: Callable[[], None]) -> bool:
    call()
    return True
