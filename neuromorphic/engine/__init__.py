"""Event engine: populations of point neurons, sparse delayed synapses, stimuli, recorders."""

from neuromorphic.engine.connectivity import (
    AllToAll,
    DistanceDependent,
    Explicit,
    FixedInDegree,
    FixedOutDegree,
    FixedProbability,
    FixedTotalNumber,
    OneToOne,
)
from neuromorphic.engine.distributions import LogNormal, Normal, Uniform
from neuromorphic.engine.errors import UnsupportedError
from neuromorphic.engine.network import Network, Population, Projection
from neuromorphic.engine.plasticity import (
    PairSTDP,
    PowerLawSTDP,
    RewardSTDP,
    ShortTermPlasticity,
    SynapticScaling,
    TripletSTDP,
)
from neuromorphic.engine.report import RunReport

__all__ = [
    "AllToAll",
    "DistanceDependent",
    "Explicit",
    "FixedInDegree",
    "FixedOutDegree",
    "FixedProbability",
    "FixedTotalNumber",
    "LogNormal",
    "Network",
    "Normal",
    "OneToOne",
    "PairSTDP",
    "Population",
    "PowerLawSTDP",
    "Projection",
    "RewardSTDP",
    "RunReport",
    "ShortTermPlasticity",
    "SynapticScaling",
    "TripletSTDP",
    "Uniform",
    "UnsupportedError",
]
