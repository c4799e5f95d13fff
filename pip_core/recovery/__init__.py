"""Recovery: what is left of a pruned model learns from the dense model, on some text."""
