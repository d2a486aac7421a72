# SPDX-License-Identifier: AGPL-3.0-or-later
"""What tests of every kind share."""
