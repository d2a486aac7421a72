# SPDX-License-Identifier: AGPL-3.0-or-later
"""The search index: a read model in SQLite that answers queries and can be rebuilt from the store."""
