"""Model references, folders, the Hub, the bundled model; writing checkpoints and proving that they load."""
