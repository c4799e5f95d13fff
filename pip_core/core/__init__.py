"""What everything else stands on: errors, units, recipe, events, device, progress, batching, paths."""
