"""A model card in the form of the Hugging Face Hub: metadata by huggingface_hub's classes, words.

What the metadata has a field for is filled only where the document knows it: an adapter has no
licence of its own that anybody recorded, and no base model on the Hub, so neither is claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clr.audit.document import day, named, periods
from clr.markdown import code, percent, table, text

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

Document = Mapping[str, Any]

_LONG = 600
_TASKS = 50
"""Earlier tasks whose results are listed, the worst first."""


def render(document: Document) -> str:
    """Return the model card, Markdown with its metadata in front.

    Args:
        document: an audit, schema ``clr.audit/1``.
    """
    from huggingface_hub import ModelCard

    sections = (
        _head(document),
        _use(document),
        _data(document),
        _training(document),
        _evaluation(document),
        _retention(document["gate"]),
        _life(document),
        _digests(document),
    )
    words = "\n\n".join("\n".join(section) for section in sections)
    return str(ModelCard(f"---\n{_metadata(document).to_yaml()}\n---\n\n{words}\n"))


def _metadata(document: Document) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    accuracy = (document["training"]["metrics"] or {}).get("accuracy")
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=document["task"],
            dataset_name=document["title"] or document["task"],
            dataset_split="test",
            dataset_revision=document["data"]["digest"],
            metric_type="accuracy",
            metric_value=accuracy,
        )
    ]
    return ModelCardData(
        model_name=document["subject"],
        library_name="clr",
        pipeline_tag="image-classification",
        tags=["adapter", "continual-learning", "image-classification"],
        metrics=["accuracy"],
        eval_results=results if accuracy is not None else None,
    )


def _head(document: Document) -> Iterator[str]:
    yield f"# {text(document['title'] or document['task'])}: `{code(document['subject'])}`\n"
    yield text(document["verdict"]["sentence"], _LONG)
    for one in document["verdict"]["problems"]:
        yield f"\n- **{text(one['subject'])}**: {text(one['message'], _LONG)}"


def _use(document: Document) -> Iterator[str]:
    backbone, adapter = document["backbone"], document["adapter"]
    yield "## What it is\n"
    yield (
        f"An adapter ({text(_or(adapter['variant']))}, {_count(adapter['params'])} kernel "
        f"parameters, {_count(adapter['bytes'])} bytes) that makes a frozen backbone answer the "
        f"task {text(document['task'])}. The backbone stays as it is: other tasks are untouched."
    )
    yield (
        f"\nBackbone: {text(_or(backbone['name']))}, from {text(_or(backbone['source']), 200)}, "
        f"licence {text(_or(backbone['licence']))}. No licence of the adapter was recorded."
    )
    classes = document["data"]["classes"] or ()
    yield (
        f"\nIt tells apart {len(classes)} classes: "
        f"{', '.join(text(one) for one in classes) or 'not recorded'}. Images of anything else "
        "get one of these labels too."
    )


def _data(document: Document) -> Iterator[str]:
    data, checked = document["data"], document["validation"]
    yield "## Data\n"
    yield f"{_count(data['train'])} images to train and {_count(data['test'])} to test."
    if checked["success"] is not None:
        said = "passed" if checked["success"] else "DID NOT PASS"
        yield f"\nThey {said} {_count(checked['expectations'])} checks (Great Expectations)."
    yield from (f"\n- warning: {text(one, _LONG)}" for one in checked["warnings"] or ())


def _training(document: Document) -> Iterator[str]:
    training = document["training"]
    yield "## Training\n"
    where = ", ".join(filter(None, (training["device"], training["hardware"])))
    yield (
        f"Run `{code(_or(training['run_id']))}`, {day(training['started'])} to "
        f"{day(training['ended'])} UTC, on {text(_or(where))}.\n"
    )
    recipe = training["recipe"] or {}
    rows = ((f"`{code(name)}`", text(value)) for name, value in sorted(recipe.items()))
    yield from table(("setting", "value"), rows)


def _evaluation(document: Document) -> Iterator[str]:
    metrics, gate = document["training"]["metrics"] or {}, document["gate"]
    low, high = (percent(metrics.get(f"accuracy.{end}")) for end in ("low", "high"))
    yield "## Evaluation\n"
    yield (
        f"Accuracy on the test images: **{percent(metrics.get('accuracy'))}** "
        f"(95 %: {low} to {high}). Before: linear probe "
        f"{percent(metrics.get('baseline.linear_probe'))}, majority class "
        f"{percent(metrics.get('baseline.majority'))}."
    )
    said = text(gate["sentence"] or "", _LONG)
    yield f"\nRetention gate: **{text(_or(gate['verdict']))}**. {said}"


def _retention(gate: Document) -> Iterator[str]:
    kept = gate["retention"] or ()
    yield "## Earlier tasks\n"
    if not kept:
        yield "None was judged."
        return
    ordered = sorted(kept, key=lambda one: (one["verdict"] == "pass", one["task"]))
    rows = (
        (text(one["task"]), text(one["verdict"]), text(one["how"]), text(one["message"], _LONG))
        for one in ordered[:_TASKS]
    )
    yield from table(("task", "verdict", "proof", "finding"), rows)
    if len(ordered) > _TASKS:
        yield f"\n{len(ordered) - _TASKS} more are in the gate report."


def _life(document: Document) -> Iterator[str]:
    registered, after = document["registration"], document["replaced_by"]
    yield "## Review and service\n"
    yield f"- registered by {text(_or(registered['actor']))}, {day(registered['time'])} UTC"
    for one in document["reviews"]:
        yield (
            f"- {text(one['decision'])} by {text(one['reviewer'])}, {day(one['time'])} UTC: "
            f"{text(one['reason'], _LONG)}"
        )
    for spell in periods(document):
        end = spell[-1]["to"]
        until = f"to {day(end)} UTC" if end else "in force"
        yield f"- served: {named(spell)}, from {day(spell[0]['from'])} UTC {until}"
    if after:
        yield f"- ended by {text(after['kind'])}, {day(after['time'])} UTC"


def _digests(document: Document) -> Iterator[str]:
    yield "## Digests\n"
    found = {
        "adapter": document["adapter"]["digest"],
        "data": document["data"]["digest"],
        "manifest": document["data"]["manifest"],
        "validation": document["validation"]["digest"],
        "code": document["code"]["digest"],
        "environment": document["environment"]["digest"],
        "backbone": document["backbone"]["digest"],
        "gate report": document["gate"]["digest"],
    }
    yield from (f"- {name}: `{code(_or(digest))}`" for name, digest in found.items())


def _or(known: str | None) -> str:
    return known or "not recorded"


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
