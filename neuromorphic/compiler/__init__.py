"""From a trained torch network to events, and to and from NIR."""

from neuromorphic.compiler.check import CheckReport as CheckReport
from neuromorphic.compiler.event_network import EventNetwork as EventNetwork
from neuromorphic.compiler.event_network import compile as compile  # noqa: A004
from neuromorphic.compiler.stream import EventStream as EventStream
from neuromorphic.compiler.stream import StreamStep as StreamStep

__all__ = ["CheckReport", "EventNetwork", "EventStream", "StreamStep", "compile"]
