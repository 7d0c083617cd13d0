"""Import of Lightning, with the two ways it can fail explained."""

import importlib
from types import ModuleType

import torch


def import_lightning() -> ModuleType:
    """Return the module lightning.pytorch.

    Lightning imports torchvision by way of torchmetrics, and a torchvision built for another build of torch (the CUDA
    wheel beside a CPU torch, say) cannot even be imported, although Lightning uses nothing of it. What its import misses
    is the declaration of two operators, so in that case they are declared, without an implementation: whoever calls one
    still gets torchvision's error.

    Raises: ImportError with the install command if Lightning is missing.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    try:
        return importlib.import_module("lightning.pytorch")
    except ImportError as error:
        raise ImportError("training needs lightning; install it with: pip install 'spikeloop[train]'") from error
