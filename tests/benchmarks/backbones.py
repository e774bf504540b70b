"""Which layers of which backbone get kernels, and what each variant adds to it.

Sizes do not depend on the weights, so these are random ones from a fixed seed. A new adapter of
each variant must compute the bare backbone's features bit for bit, and every kernel must change
them. `CLR_WRITE_DOCS=1` puts the table into docs/backbones.md.
"""

from __future__ import annotations

import os
from typing import Any, get_args

from clr.core.backbone import Backbone
from clr.core.sites import Variant
from tests.benchmarks.pages import write_docs

NAMES = (
    "tf_efficientnet_lite0", "tf_efficientnet_lite1", "efficientnet_b0", "mobilenetv3_large_100",
    "regnety_004", "densenet121", "resnet18", "resnet50", "convnext_atto", "convnext_tiny",
)  # fmt: skip
VARIANTS: tuple[Variant, ...] = get_args(Variant)
CLASSES = 10
HEADER = (
    "| backbone | parameters | k×k + 1×1 convolutions | kernels `reduced` / `full` | "
    "added by `reduced` | `full` | `mix` | batch norms | features | head of 10 classes | at birth |"
)
Facts = dict[str, Any]


def main() -> None:
    """Measure every backbone and print the table."""
    lines = [HEADER, "|---|" + "---:|" * 9 + "---|"]
    print("\n".join(lines), flush=True)
    for name in NAMES:
        lines.append(as_row(measure(name)))
        print(lines[-1], flush=True)
    if os.environ.get("CLR_WRITE_DOCS"):
        write_docs("backbones.md", {"table": "\n".join(lines)})


def measure(name: str) -> Facts:
    """Return what an adapter of each variant is over the backbone `name`."""
    import torch

    from clr.core.sites import kernel_sites
    from tests.core.conftest import lively

    backbone = lively(name)
    spatial = [m for m in backbone.convolutions.values() if max(m.kernel_size) > 1]
    norms = [m for m in backbone.module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    adapters = {variant: _adapter(backbone, variant) for variant in VARIANTS}
    return {
        "name": name,
        "parameters": backbone.parameters,
        "spatial": len(spatial),
        "pointwise": len(backbone.convolutions) - len(spatial),
        "sites": {v: len(kernel_sites(backbone, v)) for v in ("reduced", "full")},
        "added": {v: 100 * _values(one) / backbone.parameters for v, one in adapters.items()},
        "norms": len(norms),
        "norm_share": 100 * sum(2 * m.num_features for m in norms) / backbone.parameters,
        "channels": backbone.channels,
        "head": 100 * CLASSES * (backbone.channels + 1) / backbone.parameters,
        "identical": all(_is_identical(backbone, one) for one in adapters.values()),
        "alive": _is_alive(backbone, adapters["full"]),
    }


def _adapter(backbone: Backbone, variant: Variant) -> Any:
    from clr.core.adapter import AdapterSpec, new_adapter
    from clr.core.images import Preprocessing

    labels = tuple(f"class-{number}" for number in range(CLASSES))
    preprocessing = Preprocessing(96, backbone.mean, backbone.std)
    spec = AdapterSpec("table", labels, backbone.name, backbone.digest, preprocessing, variant)
    return new_adapter(spec, backbone)


def _values(adapter: Any) -> int:
    """Return how many values of kernels and mixing there are, none pruned."""
    own = ("kernels.", "mix.")
    return sum(t.numel() for name, t in adapter.tensors.items() if name.startswith(own))


def _images() -> Any:
    import torch

    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    return images.contiguous(memory_format=torch.channels_last)


def _is_identical(backbone: Backbone, adapter: Any) -> bool:
    import torch

    from clr.core.network import Program

    with torch.inference_mode():
        features = Program(backbone, adapter.tensors).features(_images())
        return torch.equal(features, backbone.module(_images()))


def _is_alive(backbone: Backbone, adapter: Any) -> bool:
    """Say whether a gradient reaches every kernel."""
    from clr.core.network import Program

    kernels = [t.requires_grad_() for n, t in adapter.tensors.items() if n.startswith("kernels.")]
    Program(backbone, adapter.tensors).features(_images()).sum().backward()
    return all(t.grad is not None and bool(t.grad.any()) for t in kernels)


def as_row(facts: Facts) -> str:
    """Return one backbone's row of the table."""
    norms = f"{facts['norms']} ({facts['norm_share']:.2f} %)" if facts["norms"] else "none"
    cells = [
        f"`{facts['name']}`",
        f"{facts['parameters']:,}",
        f"{facts['spatial']} + {facts['pointwise']}",
        f"{facts['sites']['reduced']} / {facts['sites']['full']}",
        *(f"{facts['added'][variant]:.2f} %" for variant in VARIANTS),
        norms,
        str(facts["channels"]),
        f"{facts['head']:.2f} %",
        "identical, every kernel acts" if facts["identical"] and facts["alive"] else "**broken**",
    ]
    return "| " + " | ".join(cells) + " |"
