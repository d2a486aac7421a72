# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several Orthancs share one worklist: one leads by a lease in PostgreSQL, and the others relay requests to it."""
