"""Texts: where they come from, how they are perturbed, and what calibration and evaluation share."""
