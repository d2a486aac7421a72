# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the plugin uses of Orthanc: SDK, REST API over loopback, modalities and log; and workarounds for its process."""
