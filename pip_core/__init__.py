"""PIP Studio's engine: perturbation-based iterative pruning of language models, and its rivals.

A recipe goes in, a stream of events comes out (`pip_core.engine.run`). This package knows nothing
of the page; see the README for what each module is for and which may import which.
"""

import os

# Threads of a matrix product wait for one another at its end. How long they spin before they sleep is
# a balance: torch's OpenMP spins so long that a run takes three times as long as soon as another
# program (a browser, say) wants a core; sleeping at once costs a third when nobody does. Read when
# torch is imported, so it has to be said before.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
