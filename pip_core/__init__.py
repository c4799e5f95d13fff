"""PIP Studio's engine: perturbation-based iterative pruning of language models, and its rivals.

A recipe goes in, a stream of events comes out (`pip_core.engine.run`). This package knows nothing
of the page; see the README for what each module is for and which may import which.
"""

import os

# Threads of a matrix product wait for one another at its end. Spinning while they wait makes a run
# ten times slower as soon as another program (a browser, say) wants a core. Read once, by torch's
# OpenMP, so it has to be said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
