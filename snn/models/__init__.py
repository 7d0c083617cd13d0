"""Ready networks: time-first input [T, B, ...], logits at every step."""

from snn.models.convnet import SpikingConvNet
from snn.models.mlp import SpikingMLP
from snn.models.stack import Stack
from snn.models.vgg import SpikingVGG

# Networks by name, for recipes.
MODELS = {"SpikingConvNet": SpikingConvNet, "SpikingMLP": SpikingMLP, "SpikingVGG": SpikingVGG}

__all__ = ["MODELS", "SpikingConvNet", "SpikingMLP", "SpikingVGG", "Stack"]
