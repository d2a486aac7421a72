# SPDX-License-Identifier: AGPL-3.0-or-later
"""For which AE titles a user may subscribe, listen and act (``Ups.Users``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ..core.ae_titles import AeTitles
from ..core.commands import Requester
from ..core.statuses import NOT_AUTHORIZED, UpsError
from .response import HttpProblem
from .ups_rs_resources import Resource, ae_title

ANYONE: Final = "*"
"""As a user: every caller, also an anonymous one. As an AE title: any."""
_NOBODY_IN_PARTICULAR: Final = "UPS-RS"


class Rights:
    """Without ``Ups.Users`` everybody whom Orthanc lets in may use any AE title."""

    def __init__(self, users: Mapping[str, tuple[str, ...]], titles: AeTitles) -> None:
        self._users = users
        self._ae_titles = titles

    def _titles(self, user: str | None) -> tuple[str, ...]:
        if not self._users:
            return (ANYONE,)
        own = self._users.get(user, ()) if user else ()
        titles = (*own, *(self._users.get(ANYONE, ()) if user != ANYONE else ()))
        return tuple(map(self._ae_titles.spelled, titles))

    def spelled(self, resource: Resource) -> Resource:
        """The resource with its AE title, if it has one, in its one spelling."""
        ae = self._ae_titles.spelled(resource.ae)
        return resource if ae == resource.ae else replace(resource, ae=ae)

    def check(self, user: str | None, ae: str) -> None:
        """Raise UpsError 0124 (403) unless the user may subscribe, listen and act for the AE title."""
        titles = self._titles(user)
        if ANYONE not in titles and self._ae_titles.spelled(ae) not in titles:
            raise UpsError(
                NOT_AUTHORIZED, f"{user or 'an anonymous user'} may not use AE title {ae} (Ups.Users)"
            )

    def requester(self, user: str | None, named: str | None) -> Requester:
        """Who asks: the AE title that the request names, else the first of the user, else the user's name.

        Raises:
            HttpProblem: 400 if what is named is no AE title.
            UpsError: 0124 (403) if the user may not use it, or none at all.
        """
        if named:
            ae = self._ae_titles.spelled(ae_title(named))
            self.check(user, ae)
            return Requester(ae, "UPS-RS", user)
        titles = self._titles(user)
        if not titles:
            raise UpsError(NOT_AUTHORIZED, f"{user or 'an anonymous user'} has no AE title (Ups.Users)")
        own = next((title for title in titles if title != ANYONE), None)
        return Requester(own or _as_ae_title(user), "UPS-RS", user)


def _as_ae_title(user: str | None) -> str:
    try:
        return ae_title((user or "")[:16])
    except HttpProblem:
        return _NOBODY_IN_PARTICULAR
