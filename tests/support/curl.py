# SPDX-License-Identifier: AGPL-3.0-or-later
"""The part of curl that README and the recipes use, for machines without it: ``-fsS -i -X -H -d`` with ``@file``."""

import argparse
import sys
from pathlib import Path

import requests


def main() -> int:
    """Send the request and print the answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    for flag in ("-f", "-s", "-S", "-i"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    arguments = parser.parse_args()
    data = arguments.data
    if data and data.startswith("@"):
        data = Path(data[1:]).read_text()
    headers = dict(line.split(": ", 1) for line in arguments.headers)
    method = arguments.method or ("POST" if data else "GET")
    answer = requests.request(
        method, arguments.url, data=data.encode() if data else None, headers=headers, timeout=30
    )
    if arguments.i:
        print(f"HTTP/1.1 {answer.status_code} {answer.reason}")
        print("\n".join(f"{name}: {value}" for name, value in answer.headers.items()), end="\n\n")
    sys.stdout.write(answer.text)
    return 22 if arguments.f and answer.status_code >= 400 else 0


if __name__ == "__main__":
    sys.exit(main())
