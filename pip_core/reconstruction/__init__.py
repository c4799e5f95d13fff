"""Least squares on the residual stream: refitting what remains, and linear substitutes of blocks."""
