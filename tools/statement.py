# SPDX-License-Identifier: AGPL-3.0-or-later
"""Write the tables of the DICOM conformance statement from the tables that the code uses.

    make statement                after a change of services, statuses or the attribute table

A table is between ``<!-- table: NAME -->`` and ``<!-- end of table -->``; a test compares it with the code.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from pydicom.uid import UID

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.events import EventType
from orthanc_ups.dimse import negotiation, services
from orthanc_ups.dimse.data_sets import SYNTAXES
from orthanc_ups.dimse.message import CommandField

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = (CHECKOUT / "docs/conformance.md", CHECKOUT / "docs/conformance-attributes.md")
_ATTRIBUTES: Final = CHECKOUT / "plugin/orthanc_ups/core/attributes.csv"
_TABLE: Final = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_ACTIONS: Final = {
    1: "Change UPS State",
    2: "Request UPS Cancel",
    3: "Subscribe",
    4: "Unsubscribe",
    5: "Suspend Global Subscription",
}
_EVENTS: Final = {
    EventType.STATE_REPORT: "UPS State Report",
    EventType.CANCEL_REQUESTED: "UPS Cancel Requested",
    EventType.PROGRESS_REPORT: "UPS Progress Report",
    EventType.SCP_STATUS_CHANGE: "SCP Status Change",
    EventType.ASSIGNED: "UPS Assigned",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown; rows that repeat an earlier one are left out."""
    columns = list(head)
    lines = [f"| {' | '.join(row)} |" for row in (columns, *rows)]
    lines.insert(1, "|" + "---|" * len(columns))
    return "\n".join(dict.fromkeys(lines)) + "\n"


def sop_classes() -> str:
    """UPS SOP classes and Verification, with the DIMSE services on their contexts (PS3.4 Table CC.2-1)."""
    classes = (tags.PUSH, tags.WATCH, tags.PULL, tags.EVENT, tags.QUERY, negotiation.VERIFICATION)
    return table(
        ("SOP Class", "SOP Class UID", "DIMSE services as SCP"),
        ((_name(uid), uid, _services(uid)) for uid in classes),
    )


def _name(uid: str) -> str:
    return UID(uid).name.removesuffix(" SOP Class").removesuffix(" - Trial")


def _services(uid: str) -> str:
    if uid == tags.EVENT:
        return "N-EVENT-REPORT, on associations that the plugin requests"
    names = []
    for command in sorted(services._SERVICES[uid]):
        name = command.name.replace("_", "-").removesuffix("-RQ")
        actions = sorted(services._ACTIONS.get(uid, ())) if command is CommandField.N_ACTION else []
        names.append(f"{name} ({', '.join(map(str, actions))})" if actions else name)
    return ", ".join(names)


def actions() -> str:
    """N-ACTION types (PS3.4 Table CC.2-1)."""
    rows = []
    for action, name in _ACTIONS.items():
        classes = [_name(uid) for uid, types in services._ACTIONS.items() if action in types]
        rows.append((str(action), name, ", ".join(classes)))
    return table(("Action Type ID", "Action", "on contexts of"), rows)


def events() -> str:
    """N-EVENT-REPORT types (PS3.4 Table CC.2.4-1)."""
    return table(("Event Type ID", "Event"), ((str(kind.value), name) for kind, name in _EVENTS.items()))


def transfer_syntaxes() -> str:
    """Transfer syntaxes, in the order of preference."""
    return table(("Transfer syntax", "UID"), ((UID(uid).name, uid) for uid in SYNTAXES))


def implementation() -> str:
    """What the plugin states about itself in associations (PS3.7 §D.3.3.2)."""
    rows = (
        ("Application Context Name", negotiation._APPLICATION_CONTEXT),
        ("Implementation Class UID", negotiation._IMPLEMENTATION),
        ("Implementation Version Name", negotiation._VERSION),
        ("Smallest maximum length of PDUs that is accepted from a peer", f"{negotiation._MIN_PDU} bytes"),
    )
    return table(("Item", "Value"), rows)


def status_codes() -> str:
    """The statuses of DIMSE with those of HTTP, also by service where they differ (PS3.4 CC.2, PS3.18 §11)."""
    rows = []
    for status in sorted(statuses.REGISTER.values(), key=lambda status: (status.code, status.name)):
        exceptions = [
            f"{http} {service.value}" for service, http in status.per_service.items() if http != status.http
        ]
        rows.append((f"{status.code:04X}", status.meaning, "; ".join([str(status.http), *exceptions])))
    return table(("DIMSE status", "Meaning", "HTTP status"), rows)


def attributes() -> str:
    """PS3.4 Table CC.2.5-3, as the plugin applies it; items of sequences follow their sequence."""
    lines = [line for line in _ATTRIBUTES.read_text().splitlines() if not line.startswith("#")]
    rows = []
    for row in csv.DictReader(lines):
        tag, depth = row["path"].split(".")[-1], row["path"].count(".")
        label = ">" * depth + (f"({tag[:4]},{tag[4:]})" if row["keyword"] else "any other")
        create, update = (
            f"{row[f'{service}_scu']}/{row[f'{service}_scp']}" for service in ("n_create", "n_set")
        )
        match = f"{row['cfind_match']}/{row['cfind_return']}"
        rows.append(
            (
                label,
                row["keyword"],
                row["vr"],
                create,
                update,
                row["final_state"] or "-",
                row["n_get_scp"],
                match,
            )
        )
    head = ("Tag", "Attribute", "VR", "N-CREATE", "N-SET", "Final state", "N-GET", "C-FIND match/return")
    return table(head, rows)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "sop-classes": sop_classes,
    "actions": actions,
    "events": events,
    "transfer-syntaxes": transfer_syntaxes,
    "implementation": implementation,
    "statuses": status_codes,
    "attributes": attributes,
}


def with_tables(page: str) -> str:
    """The text of a page with its tables rebuilt. Raises KeyError for the name of an unknown table."""
    return _TABLE.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}{match[3]}", page)


def main() -> int:
    """Rewrite the tables of both pages."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
