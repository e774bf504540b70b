"""The JSON of the Open Inference Protocol's answers, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """Predictions are answered."""

    ready: bool


class ModelReady(Ready):
    """The task is served."""

    name: str


class Server(BaseModel):
    """What the protocol wants to know about a server."""

    name: str
    version: str
    extensions: list[str]


class Tensor(BaseModel):
    """Name, type and shape of a tensor; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class Model(BaseModel):
    """A task, in the words of the protocol."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class Output(BaseModel):
    """A tensor of an answer; its data follows the JSON where `parameters` say so."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Inferred(BaseModel):
    """The answer to `infer`."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any]
    outputs: list[Output]
