# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the worklist is kept: the port, its in-memory twin, Orthanc's metadata, and the projection."""
