"""What the kernels work out from the tensors of a run before they start: the kernel's specification and the layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from snn.kernels.broadcast import Layout, kernel_layout
from snn.kernels.kernel_text import KernelSpec
from snn.kernels.signature import Signature

DTYPES = {torch.float32: "float32", torch.float64: "float64"}


@dataclass(frozen=True)
class Plan:
    """The signature of a run, and its parameters as the kernels read them.

    Attributes:
        spec: what the kernels are generated from besides the traced step.
        layouts: parameters that are tensors.
    """

    signature: Signature
    spec: KernelSpec
    layouts: dict[str, Layout]

    def parameter_gradients(
        self, per_neuron: Mapping[str, torch.Tensor], params: Mapping[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        """Gradients per neuron [N] of the learnable parameters, summed to the shape and dtype of each parameter."""
        return [
            self.layouts[name].gradient(gradient, params[name].shape).to(params[name].dtype)
            for name, gradient in per_neuron.items()
        ]


def plan_run(
    signature: Signature, step_shape: torch.Size, params: Mapping[str, torch.Tensor], real: torch.dtype
) -> Plan:
    """The plan of a run over steps of this shape with states held in `real`.

    Raises:
        ShapeError: a parameter does not broadcast against one step of x.
    """
    layouts = {name: kernel_layout(name, value.detach().to(real), step_shape) for name, value in params.items()}
    spec = KernelSpec(
        dtype=DTYPES[real],
        arrays=frozenset(name for name, layout in layouts.items() if layout.values.numel() > 1),
        learnable=signature.learnable,
        recorded=signature.recorded,
        keep=signature.keep,
    )
    return Plan(signature, spec, layouts)
