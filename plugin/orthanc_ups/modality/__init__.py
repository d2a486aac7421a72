# SPDX-License-Identifier: AGPL-3.0-or-later
"""Modalities that know neither UPS nor DICOMweb: Modality Worklist queries and Modality Performed Procedure Steps."""
