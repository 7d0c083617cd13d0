"""Ready networks: time-first input [T, B, ...], logits at every step."""

from snn.models.convnet import SpikingConvNet
from snn.models.delayed import SpikingDelayNet
from snn.models.mlp import SpikingMLP
from snn.models.resnet import SpikingResNet
from snn.models.stack import Stack
from snn.models.vgg import SpikingVGG

__all__ = ["SpikingConvNet", "SpikingDelayNet", "SpikingMLP", "SpikingResNet", "SpikingVGG", "Stack"]
