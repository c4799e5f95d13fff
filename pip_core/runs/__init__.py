"""Run directories: written by one worker, read by anybody; steering, queueing, listing and retention."""
