"""Loading checkpoints by reference (folder, Hub, bundled model); writing, verifying and packing them."""
