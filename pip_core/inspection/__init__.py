"""Two models side by side: chat, divergence of predictions, latency; and the cost of scoring."""
