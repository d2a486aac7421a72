# SPDX-License-Identifier: AGPL-3.0-or-later
"""Run a real Orthanc with the plugin in the foreground, and print its addresses once it answers.

Uses only the standard library, because it must run on a fresh machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this is run as a script
from tools import postgresql

CHECKOUT = Path(__file__).resolve().parents[1]
NATIVE = CHECKOUT / "docker" / "native.sh"
INDEX_PLUGIN = "${ORTHANC_PLUGINS}/libOrthancPostgreSQLIndex.so"


def main() -> int:
    """Run until Orthanc ends; returns its exit code (0 after SIGINT or SIGTERM), 1 if a port is taken."""
    arguments = _parser().parse_args()
    configuration = json.loads(arguments.configuration.read_text())
    taken = [port for port in _ports(configuration) if _accepts(port)]
    if taken:
        listed = ", ".join(map(str, taken))
        print(f"another program listens on port {listed}: stop it, or change orthanc.json", file=sys.stderr)
        return 1
    if arguments.postgresql:
        return _run_on_postgresql(arguments.suite, configuration)
    return _run(arguments.suite, arguments.configuration, configuration, {})


def _run_on_postgresql(suite: str, configuration: dict[str, Any]) -> int:
    name = f"{suite}-postgresql"
    data = CHECKOUT / ".data" / name
    # Under root, PostgreSQL runs as another user, who may have no access to the checkout.
    shared = Path("/var/tmp/orthanc-ups") / name if os.geteuid() == 0 else data / "server"
    with postgresql.server(shared) as port:
        configuration["PostgreSQL"] = postgresql.section(port)
        configuration["Plugins"] = [INDEX_PLUGIN, *configuration["Plugins"]]
        data.mkdir(parents=True, exist_ok=True)
        file = data / "orthanc.json"
        file.write_text(json.dumps(configuration, indent=2))
        variables = {
            "ORTHANC_UPS_MORE_PACKAGES": "orthanc-postgresql",
            "ORTHANC_UPS_DATA": str(data / "orthanc"),
        }
        return _run(suite, file, configuration, variables)


def _run(suite: str, file: Path, configuration: dict[str, Any], variables: dict[str, str]) -> int:
    # In a session of its own: a second SIGINT from the terminal would kill Orthanc while it stops.
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", NATIVE, "run", "--suite", suite, file],
        start_new_session=True,
        env={**os.environ, **variables},
    )
    _pass_on_first_signal(process)
    threading.Thread(target=_announce, args=(process, configuration), daemon=True).start()
    return process.wait()


def _pass_on_first_signal(process: subprocess.Popen[bytes]) -> None:
    def stop(number: int, _: object) -> None:
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.SIG_IGN)
        os.killpg(process.pid, number)

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/run.py", description=__doc__)
    parser.add_argument("--suite", default="forky", help="Debian suite of Orthanc: forky (default) or trixie")
    parser.add_argument(
        "--postgresql",
        action="store_true",
        help="keep Orthanc's index in a PostgreSQL that is started with it",
    )
    parser.add_argument("configuration", type=Path, help="Orthanc's configuration file")
    return parser


def _announce(process: subprocess.Popen[bytes], configuration: dict[str, Any]) -> None:
    while not all(_accepts(port) for port in _http_ports(configuration)):
        if process.poll() is not None:
            return
        time.sleep(0.2)
    print("\n".join(["", *_addresses(configuration), ""]), flush=True)


def _http_ports(configuration: dict[str, Any]) -> list[int]:
    ups = configuration.get("Ups", {})
    own = [ups.get("HttpPort", 8043)] if ups.get("Enable") else []
    return [configuration.get("HttpPort", 8042), *own]


def _ports(configuration: dict[str, Any]) -> list[int]:
    """The ports that this Orthanc will listen on."""
    ups = configuration.get("Ups", {})
    own = [ups.get("DicomPort", 4243)] if ups.get("Enable") else []
    return [configuration.get("DicomPort", 4242), *own, *_http_ports(configuration)]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _addresses(configuration: dict[str, Any]) -> list[str]:
    aet = configuration.get("DicomAet", "ORTHANC")
    orthanc = f"http://127.0.0.1:{configuration.get('HttpPort', 8042)}"
    lines = [
        "Orthanc is up; Ctrl-C stops it.",
        f"  Orthanc Explorer     {orthanc}/app/explorer.html",
        f"  Orthanc's DICOM      127.0.0.1:{configuration.get('DicomPort', 4242)}, AE title {aet}",
    ]
    ups = configuration.get("Ups", {})
    if ups.get("Enable"):
        root = ups.get("Root", "/dicom-web")
        lines += [
            f"  UPS worklist page    {orthanc}/ups/app/",
            f"  UPS over DIMSE       127.0.0.1:{ups.get('DicomPort', 4243)}, AE title {ups.get('Aet') or aet}",
            f"  UPS over DICOMweb    http://127.0.0.1:{ups.get('HttpPort', 8043)}{root}/workitems",
        ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
