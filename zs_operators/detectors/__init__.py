"""Detectors of other makes in the place of the proposer, or of proposer and CLIP."""
