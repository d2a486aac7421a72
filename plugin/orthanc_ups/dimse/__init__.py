# SPDX-License-Identifier: AGPL-3.0-or-later
"""UPS over DIMSE: association, messages, data sets, SCP and SCU."""
