"""Ready networks, each a function from ``Options`` to a ``ReadyNetwork``."""

from neuromorphic.engine.networks.balanced import coba, cuba
from neuromorphic.engine.networks.brunel import brunel, brunel_stdp
from neuromorphic.engine.networks.microcircuit import microcircuit
from neuromorphic.engine.networks.ready import Options, ReadyNetwork

__all__ = ["Options", "ReadyNetwork", "brunel", "brunel_stdp", "coba", "cuba", "microcircuit"]
