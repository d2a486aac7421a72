# SPDX-License-Identifier: AGPL-3.0-or-later
"""Exit code 0 if every HTTP server of the container answers, be it with a refusal.

ORTHANC_UPS_HEALTH_URLS names them, separated by spaces.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

DEFAULT_URLS = "http://127.0.0.1:8042/system http://127.0.0.1:8043/"


def opener() -> urllib.request.OpenerDirector:
    """Asks without a proxy, and takes any certificate: it names the outside host, not loopback."""
    unchecked = ssl._create_unverified_context()  # noqa: S323
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unchecked)
    )


def problem(url: str) -> str:
    """What is wrong with the server, or an empty text."""
    try:
        opener().open(url, timeout=4).close()
    except urllib.error.HTTPError as error:
        return f"{url}: {error}" if error.code >= 500 else ""
    except OSError as error:
        return f"{url}: {error}"
    return ""


if __name__ == "__main__":
    problems = [problem(url) for url in os.environ.get("ORTHANC_UPS_HEALTH_URLS", DEFAULT_URLS).split()]
    sys.exit("\n".join(filter(None, problems)) or 0)
