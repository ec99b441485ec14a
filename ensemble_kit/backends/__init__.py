"""Networks of any framework behind one seam: `put` a batch, `forward` it, `get` the outputs. One file a framework."""

from ensemble_kit.backends.network import Network
from ensemble_kit.backends.registry import open_network

__all__ = ["Network", "open_network"]
