# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several Orthancs, one worklist: one leads, by a lease in PostgreSQL; every one accepts and passes on to it."""
