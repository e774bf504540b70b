"""A plain network in forms that other programs run: ONNX, TorchScript, weights with their code.

Each form is written as bytes by name, and read back as a function by which it is checked.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from clr.core.export_code import as_source
from clr.core.files import canonical_json
from clr.errors import UsageError, extra

Form = Literal["onnx", "torchscript", "safetensors-bundle"]
FORMS: tuple[str, ...] = get_args(Form)
Files = dict[str, bytes]
Function = Callable[[Tensor], Tensor]
_EXTRA = ("onnx", "onnxscript", "onnxruntime")
_README = """# Task {task}, version {version}

The network of one task as plain weights and code, written by clr {library}. Nothing in here is
pickled. `weights.safetensors` has the tensors, `model.py` the computation in operators of PyTorch,
`spec.json` labels, preprocessing and digests. It needs torch and safetensors, and no package else:

```python
import json
import torch
from safetensors.torch import load_file
from model import logits

spec = json.load(open("spec.json"))
images = torch.zeros(1, 3, {size}, {size})  # pixels in 0 ... 1, then (pixels - mean) / std
with torch.inference_mode():
    answer = logits(load_file("weights.safetensors"), images)
print(spec["labels"][int(answer[0].argmax())])
```

Images are scaled to {size} x {size} pixels ({interpolation}); mean {mean}, std {std}.
"""


def name_of(form: Form, task: str, version: int) -> str:
    """Return how the exported file or, of a bundle, folder is called."""
    ending = {"onnx": ".onnx", "torchscript": ".pt", "safetensors-bundle": ""}[form]
    return f"{task}-{version}{ending}"


def require(form: Form) -> None:
    """Refuse a form whose packages are not installed.

    Raises:
        UsageError: they are not; says how to install them.
    """
    missing = [one for one in _EXTRA if form == "onnx" and not importlib.util.find_spec(one)]
    if missing:
        raise UsageError(
            f"To export ONNX, {', '.join(missing)} must be installed.",
            fix=f"{extra('onnx')}.",
        )


def write(form: Form, network: nn.Module, size: int, spec: Mapping[str, Any]) -> Files:
    """Return the files of a network, for any number of images of one size.

    Args:
        form: which.
        network: maps float images [N, 3, size, size] to logits [N, classes].
        size: side in pixels.
        spec: JSON-serialisable facts that go with it.

    Returns:
        bytes by path; of a single file under the name "".
    """
    sample = torch.zeros(2, 3, size, size)
    return _WRITERS[form](network, sample, spec)


def read(form: Form, path: Path) -> Function:
    """Return the function (float images [N, 3, S, S] -> logits [N, classes]) that was written."""
    return _READERS[form](path)


def _write_onnx(network: nn.Module, sample: Tensor, spec: Mapping[str, Any]) -> Files:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the exporter itself calls
        program = torch.onnx.export(
            network,
            (sample,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for name, value in spec.items():
        text = value if isinstance(value, str) else canonical_json(value).decode()
        model.metadata_props.add(key=name, value=text)
    return {"": model.SerializeToString(deterministic=True)}


def _read_onnx(path: Path) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _write_torchscript(network: nn.Module, sample: Tensor, spec: Mapping[str, Any]) -> Files:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch says so of all TorchScript
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(network, sample)
        extra = {"spec.json": json.dumps(spec, sort_keys=True)}
        torch.jit.save(traced, buffer, _extra_files=extra)
    return {"": buffer.getvalue()}


def _read_torchscript(path: Path) -> Function:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        loaded: Function = torch.jit.load(path)
    return loaded


def _write_bundle(network: nn.Module, sample: Tensor, spec: Mapping[str, Any]) -> Files:
    import safetensors.torch

    weights, source = as_source(network, sample)
    about = dict(spec) | dict(spec["preprocessing"])
    return {
        "weights.safetensors": safetensors.torch.save(weights, {"format": "pt"}),
        "model.py": source.encode(),
        "spec.json": json.dumps(spec, indent=2, sort_keys=True).encode() + b"\n",
        "README.md": _README.format(**about).encode(),
    }


def _read_bundle(path: Path) -> Function:
    import safetensors.torch

    weights = safetensors.torch.load_file(path / "weights.safetensors")
    module = ModuleType("model")
    exec(compile((path / "model.py").read_text("utf-8"), "model.py", "exec"), vars(module))  # noqa: S102 - as written a moment ago
    logits: Callable[[Mapping[str, Tensor], Tensor], Tensor] = module.logits
    return lambda images: logits(weights, images)


_WRITERS: dict[Form, Callable[[nn.Module, Tensor, Mapping[str, Any]], Files]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "safetensors-bundle": _write_bundle,
}
_READERS: dict[Form, Callable[[Path], Function]] = {
    "onnx": _read_onnx,
    "torchscript": _read_torchscript,
    "safetensors-bundle": _read_bundle,
}
