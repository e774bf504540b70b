"""The model card: read back by huggingface_hub's own classes, with words from outside as words."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from clr.audit.forms import card
from tests.audit import documents


@pytest.mark.parametrize("make", [documents.document, documents.old])
def test_huggingface_hub_reads_its_metadata_and_words(make):
    found = ModelCard(card.render(make()))  # refuses metadata that is not valid
    assert found.data.pipeline_tag == "image-classification"
    assert found.text.lstrip().startswith("# ")


def test_the_accuracy_is_an_evaluation_result_on_exactly_that_data():
    document = documents.document()
    (result,) = ModelCard(card.render(document)).data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.72)
    assert (result.dataset_split, result.dataset_revision) == ("test", document["data"]["digest"])


def test_what_was_not_recorded_is_not_claimed():
    metadata = ModelCard(card.render(documents.old())).data
    assert (metadata.license, metadata.base_model, metadata.eval_results) == (None, None, None)
    assert "not recorded" in card.render(documents.old())


def test_it_tells_figures_earlier_tasks_reviews_service_and_digests():
    document = documents.document()
    words = ModelCard(card.render(document)).text
    for expected in (
        "**72.0 %** (95 %: 66.0 % to 77.0 %)",
        "linear probe 60.0 %",
        "| digits",
        "approved by rita, 2026-11-24 11:00 UTC: all cats found",
        "served: Release 5, from 2026-11-24 11:00 UTC in force",
        f"adapter: `{document['adapter']['digest']}`",
    ):
        assert expected in words


def test_hostile_words_stay_words():
    document = documents.document()
    document["title"] = "</h1><script>alert(1)</script>\n---\nlicense: mit"
    document["reviews"][0]["reason"] = "ok\n\n## Digests\n[click](https://evil.example)"
    found = ModelCard(card.render(document))
    assert found.data.license is None
    assert "<script" not in found.text
    assert "[click](" not in found.text
    assert found.text.count("\n## Digests") == 1


def test_problems_stand_under_the_verdict():
    head = card.render(documents.broken()).split("## What it is")[0]
    assert "The registered file has other bytes" in head
