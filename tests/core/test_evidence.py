"""The digest of what is attached is that of the adapter's file, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clr.core.adapter import Adapter, load_adapter, save_adapter
from clr.core.backbone import Backbone
from clr.core.compress import STORAGES
from clr.core.evidence import attached_digest
from clr.core.network import ReprogrammedNetwork
from tests.core.test_adapter import KINDS

Shaken = Callable[..., Adapter]


@pytest.mark.parametrize(
    ("variant", "batch_norm", "storage"),
    [*((*kind, "float32") for kind in KINDS), *(("mix", "batch", one) for one in STORAGES)],
)
def test_what_is_attached_has_the_digest_of_its_file_until_one_bit_of_it_changes(
    variant: str,
    batch_norm: str,
    storage: str,
    backbone: Backbone,
    shaken: Shaken,
    tmp_path: Path,
) -> None:
    recipe = {"rate": 0.1, "by": [1]}
    made = shaken(
        backbone, variant=variant, batch_norm=batch_norm, storage=storage, recipe=recipe
    ).compressed()
    digest = save_adapter(made, tmp_path / "adapter.safetensors")
    network = ReprogrammedNetwork(backbone)
    network.attach(load_adapter(tmp_path / "adapter.safetensors", backbone, digest), "parts")
    assert attached_digest(network, "parts") == digest
    for tensor in network.adapter("parts").tensors.values():
        bits = tensor.view(torch.int32).reshape(-1)
        bits[-1] ^= 1
        assert attached_digest(network, "parts") != digest
        bits[-1] ^= 1
    assert attached_digest(network, "parts") == digest
