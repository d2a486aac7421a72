# SPDX-License-Identifier: AGPL-3.0-or-later
"""What "PythonScript" of orthanc.json points to: hands Orthanc's Python module to the plugin."""

import os

import orthanc

import orthanc_ups

try:
    orthanc_ups.install(orthanc)
except SystemExit:
    os._exit(1)  # the log says why; Orthanc, which has opened nothing yet, would only add a traceback
