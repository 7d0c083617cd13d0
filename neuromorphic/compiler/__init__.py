"""From a trained torch network to events, and to and from NIR."""

from neuromorphic.compiler.check import CheckReport as CheckReport
from neuromorphic.compiler.event_network import EventNetwork as EventNetwork
from neuromorphic.compiler.event_network import compile as compile
from neuromorphic.compiler.nir_module import NIRNetwork as NIRNetwork
from neuromorphic.compiler.nir_module import from_nir as from_nir
from neuromorphic.compiler.nir_write import to_nir as to_nir
from neuromorphic.compiler.stream import EventStream as EventStream
from neuromorphic.compiler.stream import StreamStep as StreamStep

__all__ = ["CheckReport", "EventNetwork", "EventStream", "NIRNetwork", "StreamStep", "compile", "from_nir", "to_nir"]
