"""Full fine-tuning, a whole copy of the backbone for each task: the upper reference."""

from __future__ import annotations

from dataclasses import replace

from clr.core.backbone import Backbone
from clr.core.finetune import classifier, copied, fine_tune
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import Served
from clr.core.recipe import Recipe


def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
    """Train every weight of a copy, from the probe's head on.

    Linear probing, then fine-tuning (LP-FT, Kumar et al. 2022). Batch norm:
    pretrained statistics, weight and bias trained. Batch size, augmentation and label
    smoothing are CLR's.
    """
    model = classifier(copied(backbone), lesson.baseline.probe, backbone.device)
    fine_tune(
        model,
        lesson.images,
        lesson.baseline,
        lesson.preprocessing,
        replace(Recipe(), epochs=budget.epochs, seed=seed),
        seconds=budget.seconds,
    )
    head = sum(p.numel() for p in model[1].parameters())
    changed = sum(p.numel() for p in model[0].parameters())
    return Served(model, Cost.of_floats(head=head, other=changed))
