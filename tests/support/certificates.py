# SPDX-License-Identifier: AGPL-3.0-or-later
"""Certificates for tests, made by openssl and valid for a day."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate and its key."""

    certificate: str
    key: str


def self_signed(folder: Path, name: str) -> Certificate:
    """A self-signed certificate with its key."""
    pair = Certificate(str(folder / f"{name}.crt"), str(folder / f"{name}.key"))
    command = ["openssl", "req", "-x509", "-nodes", "-days", "1"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", pair.key, "-out", pair.certificate]
    subprocess.run(command, check=True, capture_output=True)
    return pair


def bundle(folder: Path, *certificates: Certificate) -> str:
    """A file with several trusted certificates."""
    file = folder / f"trusted-{len(list(folder.iterdir()))}.crt"
    file.write_text("".join(Path(certificate.certificate).read_text() for certificate in certificates))
    return str(file)
