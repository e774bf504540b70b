"""A registered version predicts on images, with the bits of the network and its backbone."""

from __future__ import annotations

import base64
import gc
import json

import pandas as pd
import pytest
import torch

from clr.core.images import decode, prepare
from clr.core.network import ReprogrammedNetwork
from clr.errors import DataRefused, IntegrityBroken, UsageError
from clr.registry import fetch, runs, versions
from clr.registry.model import as_bytes, load_version, network_for

DATA = "md5:" + "d" * 32 + ".dir"


def register(registry, network, which, task):
    """Register one of the adapters as the candidate of `task`."""
    run = runs.find_or_start_run(registry, task, "sha256:1")
    made = versions.register_adapter(
        registry, run, getattr(network, which).path, key="sha256:1", backbone=network.reference,
        data_digest=DATA, card="# Card", tags={},
    )  # fmt: skip
    versions.set_candidate(registry, made)
    return task


@pytest.fixture(scope="module")
def registry(lasting):
    return lasting


@pytest.fixture(scope="module")
def registered(registry, network):
    """Register both adapters, one task each; returns their names."""
    return [register(registry, network, which, f"model-{which}") for which in ("one", "two")]


embedded_only = pytest.mark.parametrize("lasting", ["embedded"], indirect=True)


@pytest.fixture
def probabilities(network, pictures):
    """What the network itself says, image by image."""

    def act(which):
        adapter = getattr(network, which).adapter
        bare = ReprogrammedNetwork(network.backbone)
        bare.attach(adapter, "x")
        batch = torch.stack([decode(one, 32) for one in pictures])
        return bare.logits(prepare(batch, adapter.spec.preprocessing), "x").softmax(1)

    return act


@pytest.mark.parametrize("encoded", [bytes, lambda data: base64.b64encode(data).decode()])
def test_the_candidate_predicts_what_the_network_computes(
    registry, registered, pictures, probabilities, encoded
):
    model = load_version(registry, registered[0], "candidate")
    table = pd.DataFrame({"image": [encoded(one) for one in pictures]}, index=[7, 5, 3, 1])
    answer = model.predict(table)
    wanted = probabilities("one")
    assert list(answer.index) == [7, 5, 3, 1]
    assert [list(row.values()) for row in answer["probabilities"]] == wanted.tolist()
    assert list(answer["label"]) == [("cat", "dog", "emu")[at] for at in wanted.argmax(1)]
    assert list(answer["probability"]) == wanted.amax(1).tolist()


def test_mlflow_alone_loads_it_by_its_address(registry, registered, pictures, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", registry.uri)
    model = mlflow.pyfunc.load_model(f"models:/clr-{registered[0]}@candidate")
    assert len(model.predict(pd.DataFrame({"image": pictures}))) == len(pictures)
    assert model.metadata.signature.inputs.input_names() == ["image"]
    example = model.input_example
    assert list(model.predict(example).columns) == ["label", "probability", "probabilities"]


@embedded_only
def test_two_adapters_share_one_backbone_and_leave_nothing_behind(
    registry, registered, pictures, probabilities
):
    one, two = (load_version(registry, name, "1").unwrap_python_model() for name in registered)
    assert one._network is two._network
    network = one._network
    weights = {tensor.data_ptr() for tensor in network.backbone.module.state_dict().values()}
    for model in (one, two):
        tensors = network.adapter(model._name).tensors.values()
        assert not weights & {tensor.data_ptr() for tensor in tensors}
    again = load_version(registry, registered[0], "1").unwrap_python_model()
    assert again._name == one._name
    table = pd.DataFrame({"image": pictures})
    del one
    gc.collect()
    assert again.predict(None, table)["probability"].tolist() == (
        probabilities("one").amax(1).tolist()
    )
    assert {again._name, two._name} <= set(network.names)
    gone = two._name  # the other was loaded last, and MLflow itself keeps that one
    del two, model, tensors
    gc.collect()
    assert gone not in network.names
    assert again._name in network.names


def test_the_folder_holds_no_pickle_and_no_backbone(registry, registered, network, tmp_path):
    wanted = {
        "MLmodel", "artifacts/adapter.safetensors", "artifacts/backbone.json", "card.md",
        "clr_model.py", "conda.yaml", "input_example.json", "python_env.yaml",
        "requirements.txt", "serving_input_example.json",
    }  # fmt: skip
    for name in wanted:
        path = fetch.fetch_file(registry, f"clr-{registered[0]}", 1, name, tmp_path / "x")
        assert not path.read_bytes().startswith((b"\x80", b"PK"))  # pickle, zip of torch.save
    if registry.embedded:
        folder = fetch.fetch_file(registry, f"clr-{registered[0]}", 1, "MLmodel", tmp_path).parent
        files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        # MLflow and Python note there that it was loaded
        left = {name for name in files if name.startswith("__pycache__/")}
        assert files - left - {"registered_model_meta"} == wanted
    else:
        mine = versions.get_version(registry, registered[0], 1).model_id
        listed = registry.client.list_logged_model_artifacts(mine)
        assert {one.path for one in listed} == {name.split("/")[0] for name in wanted}
    adapter = fetch.fetch_adapter(registry, registered[0], 1, tmp_path / "x")
    assert (
        adapter.stat().st_size < network.backbone.parameters
    )  # a float of the backbone is 4 bytes
    reference = json.loads(
        fetch.fetch_file(
            registry, f"clr-{registered[0]}", 1, "artifacts/backbone.json", tmp_path / "x"
        ).read_text()
    )
    assert reference["digest"] == network.backbone.digest
    assert reference["adapter_digest"] == network.one.digest


def test_loading_and_predicting_unpickles_nothing(shop, state, embedded, network):
    register(embedded, network, "one", "animals")
    job = {"do": "load_without_pickle", "args": {"state": str(state), "task": "animals"}}
    (answer,) = shop(job)
    assert answer.get("result") == [], answer


@embedded_only
@pytest.mark.parametrize("value", ["/etc/passwd", "no base64 é", b"", b"\x89PNG broken", 7, None])
def test_what_is_not_an_image_is_refused_and_its_row_named(registry, registered, pictures, value):
    model = load_version(registry, registered[0], "1").unwrap_python_model()
    with pytest.raises(DataRefused, match="Row 1"):
        model.predict(None, pd.DataFrame({"image": [pictures[0], value]}))


@embedded_only
def test_a_table_without_images_is_refused(registry, registered):
    model = load_version(registry, registered[0], "1").unwrap_python_model()
    with pytest.raises(UsageError, match="no column 'image'"):
        model.predict(None, pd.DataFrame({"file": [b""]}))


def test_a_missing_version_is_an_error_of_use(registry, registered):
    with pytest.raises(UsageError, match="no version 'champion'"):
        load_version(registry, registered[0], "champion")


def test_a_changed_adapter_is_never_loaded(embedded, network):
    task = register(embedded, network, "one", "animals")
    path = fetch.fetch_adapter(embedded, task, 1, embedded.cache)
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with pytest.raises(IntegrityBroken):
        load_version(embedded, task, 1)


def test_another_backbone_of_the_same_name_is_refused(network):
    wrong = {"name": network.backbone.name, "digest": "sha256:" + "0" * 64, "pretrained": False}
    with pytest.raises(IntegrityBroken, match="was trained on sha256:000"):
        network_for(wrong)


def test_bytes_and_base64_are_the_same():
    assert as_bytes(b"ab") == as_bytes(bytearray(b"ab")) == as_bytes("YWI=") == b"ab"
