"""A network as weights by name and the source of one function over them."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

_HEAD = '''"""The computation of one task's network; see README.md beside this file."""

import torch
from torch import device, inf, nan  # noqa: F401


def logits(weights, images):
    """Return logits [N, classes] of float images [N, 3, H, W]; `weights` by their names."""
'''


def as_source(network: nn.Module, sample: Tensor) -> tuple[dict[str, Tensor], str]:
    """Return the network's tensors by name, and a Python module with `logits(weights, images)`.

    The source is what `torch.export` recorded, in PyTorch's own operators; the number of
    images is free, their size is the sample's.
    """
    program = torch.export.export(
        network, (sample,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    signature, state = program.graph_signature, program.state_dict
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    used = {argument: name for argument, name in names.items() if _is_used(program.graph, argument)}
    tensors = {name: _tensor(state, program.constants, name) for name in used.values()}
    (given,) = signature.user_inputs
    lines = [f'{argument} = weights["{name}"]' for argument, name in used.items()]
    lines.append(f"{given} = images")
    return tensors, _HEAD + "".join(f"    {line}\n" for line in [*lines, *_body(program)])


def _is_used(graph: torch.fx.Graph, argument: str) -> bool:
    return any(node.name == argument and node.users for node in graph.nodes)


def _tensor(state: dict[str, Tensor], constants: dict[str, Tensor], name: str) -> Tensor:
    found = state[name] if name in state else constants[name]
    return found.detach().clone(memory_format=torch.contiguous_format)


def _body(program: torch.export.ExportedProgram) -> list[str]:
    """Return the statements that torch.export recorded, without those that free names."""
    _, _, code = program.graph_module.code.partition("):\n")
    lines = [line.strip().partition(";  ")[0] for line in code.strip().splitlines()]
    *statements, last = [line for line in lines if line]
    answer = re.fullmatch(r"return \((\w+),\)", last)
    assert answer, last
    return [*statements, f"return {answer[1]}"]
