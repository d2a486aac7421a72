# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a user may do (``Ups.Users``): the one rule of every interface that knows users.

UPS-RS on both ports, WebSockets, the management API, its page, export and import all ask ``Rights``. DIMSE peers are
no users: what they may do is a matter of ``DicomModalities`` (``dimse/policy``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Final

from ..core.ae_titles import AeTitles
from ..core.commands import Requester
from ..core.statuses import NOT_AUTHORIZED, UpsError
from .resources import Resource, ae_title
from .response import HttpProblem

ANYONE: Final = "*"
"""As a user: every caller, also an anonymous one. As an AE title: any, and administration."""
_NOBODY_IN_PARTICULAR: Final = "UPS-RS"


class Rights:
    """The AE titles that users may use. Without ``Ups.Users``, every user that Orthanc admits may use any."""

    def __init__(self, users: Mapping[str, tuple[str, ...]], titles: AeTitles) -> None:
        self._users = users
        self._ae_titles = titles
        for title in chain.from_iterable(users.values()):
            titles.use(title)

    def _titles(self, user: str | None) -> tuple[str, ...]:
        if not self._users:
            return (ANYONE,)
        own = self._users.get(user, ()) if user else ()
        titles = (*own, *(self._users.get(ANYONE, ()) if user != ANYONE else ()))
        return tuple(map(self._ae_titles.spelled, titles))

    def ae_title(self, text: str) -> str:
        """The AE title in a text, in its one spelling. Raises HttpProblem 400."""
        return self._ae_titles.spelled(ae_title(text))

    def spelled(self, resource: Resource) -> Resource:
        """The resource with its AE title, if it has one, in its one spelling."""
        ae = self._ae_titles.spelled(resource.ae)
        return resource if ae == resource.ae else replace(resource, ae=ae)

    def check(self, user: str | None, ae: str) -> None:
        """Raise UpsError 0124 (403) unless the user may subscribe, listen and act for the AE title."""
        if not self.may_act_for(user, ae):
            raise _refusal(user, f"may not use AE title {ae}")

    def may_act_for(self, user: str | None, ae: str) -> bool:
        """True if the user is named for the AE title."""
        titles = self._titles(user)
        return ANYONE in titles or any(self._ae_titles.same(title, ae) for title in titles)

    def check_acting(self, user: str | None) -> None:
        """Raise UpsError 0124 (403) unless the user is named for an AE title at all."""
        if not self.may_act(user):
            raise _refusal(user, "has no AE title and may only read")

    def may_act(self, user: str | None) -> bool:
        """True if the user is named for an AE title at all."""
        return bool(self._titles(user))

    def check_administration(self, user: str | None) -> None:
        """Raise UpsError 0124 (403) unless the user is named for any AE title."""
        if not self.may_administer(user):
            raise _refusal(user, 'may not administer the worklist: that requires the AE title "*"')

    def may_administer(self, user: str | None) -> bool:
        """True if the user is named for any AE title."""
        return ANYONE in self._titles(user)

    def ae_titles(self, user: str | None) -> tuple[str, ...]:
        """The AE titles that a user is named for one by one, their own first."""
        return tuple(dict.fromkeys(title for title in self._titles(user) if title != ANYONE))

    def operator(self, user: str | None, worklist_ae: str, reason: str = "") -> Requester:
        """The requester of an action on the page: the user's first AE title, or the worklist's for any and for none."""
        first = next(iter(self._titles(user)), ANYONE)
        return Requester(worklist_ae if first == ANYONE else first, "page", user, reason)

    def requester(self, user: str | None, ae_title: str | None) -> Requester:
        """The requester of a command: the AE title in the request, else the first of the user, else the user's name.

        Raises:
            HttpProblem: 400 if the request has an invalid AE title.
            UpsError: 0124 (403) if the user may not use it, or none at all.
        """
        if ae_title:
            ae = self.ae_title(ae_title)
            self.check(user, ae)
            return Requester(ae, "UPS-RS", user)
        titles = self._titles(user)
        if not titles:
            raise _refusal(user, "has no AE title")
        own = next((title for title in titles if title != ANYONE), None)
        return Requester(own or _as_ae_title(user), "UPS-RS", user)


def _refusal(user: str | None, what: str) -> UpsError:
    return UpsError(NOT_AUTHORIZED, f"{user or 'an anonymous user'} {what} (Ups.Users)")


def _as_ae_title(user: str | None) -> str:
    try:
        return ae_title((user or "")[:16])
    except HttpProblem:
        return _NOBODY_IN_PARTICULAR
