# SPDX-License-Identifier: AGPL-3.0-or-later
"""UPS-RS over HTTP and WebSocket, on the plugin's own port and on Orthanc's."""
