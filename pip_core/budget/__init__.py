"""From a target to a pruning budget, and from scores and a budget to units."""
