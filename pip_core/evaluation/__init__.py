"""Measuring a model: tasks, log-likelihoods, perplexity, and statistics of paired comparisons."""
