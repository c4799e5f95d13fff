"""How long the Hub is waited for, and which errors mean that it does not answer."""

from __future__ import annotations

from huggingface_hub.errors import HfHubHTTPError

# Seconds.
HUB_TIMEOUT = 5.0
# The Hub client's own bases: the HTTP library's root error (whichever library it is), and OSError.
UNREACHABLE = HfHubHTTPError.__bases__
