# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the worklist is stored: the port, its two adapters and in-memory twin, documents, and the copy."""
