"""Energy of networks: what they did as integers, and models that price it, every price with its source."""

from neuromorphic.energy.counting import count as count
from neuromorphic.energy.counting import with_geometry as with_geometry
from neuromorphic.energy.counts import ANALOG as ANALOG
from neuromorphic.energy.counts import SPIKES as SPIKES
from neuromorphic.energy.counts import Counts as Counts
from neuromorphic.energy.counts import EventNetwork as EventNetwork
from neuromorphic.energy.counts import LayerActivity as LayerActivity
from neuromorphic.energy.counts import LayerCounts as LayerCounts
from neuromorphic.energy.counts import Signal as Signal
from neuromorphic.energy.counts import from_activity as from_activity
