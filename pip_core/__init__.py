"""PIP Studio's engine: perturbation-based iterative pruning of language models, and its rivals.

A recipe goes in, a stream of events comes out (`pip_core.engine.run`). This package knows nothing
of the page; see the README for what each module is for and which may import which.
"""

__version__ = "0.1.0"
