"""A pilot's document as `clr pilot` writes it, to be changed field by field."""

from __future__ import annotations

from typing import Any

from clr.pilot import criteria
from clr.pilot.criteria import Pairs, Today
from clr.pilot.sizes import not_yet
from clr.roi import business_case

BUSINESS = {
    "currency": "EUR", "items_per_year": 250_000.0, "error_cost": 1.2,
    "label_cost_per_image": 0.05, "compute_cost_per_hour": 0.4, "engineer_hours": 16.0,
    "hourly_rate": 80.0, "maintenance_hours_per_month": 2.0, "horizon_years": 3.0,
    "discount_rate": 0.08,
}  # fmt: skip
PAIRS = Pairs(n=600, before=504, regressed=12, repaired=54)
LINE = Pairs(n=400, before=330, regressed=10, repaired=40)
TODAY = Today.sample(120, 600)
GATE = {
    "verdict": "pass", "failed": [], "inconclusive": [], "release": "sha256:" + "4" * 64,
    "metrics": {"earlier_tasks": 3.0, "identical": 3.0, "replayed": 0.0, "paired_test": 0.0},
}  # fmt: skip
CURVE = {
    "needed": {"verdict": "reached", "low": 90.0, "middle": 210.0, "high": 480.0},
    "asymptote": {"low": 0.91, "middle": 0.94, "high": 0.99},
}


def document(
    *,
    pairs: Pairs = PAIRS,
    today: Today | None = TODAY,
    gate: dict[str, Any] = GATE,
    curve: dict[str, Any] | None = CURVE,
    business: dict[str, Any] = BUSINESS,
    line: Pairs | None = None,
    title: str = "Solder joints",
    reason: str = "",
) -> dict[str, Any]:
    """Return a document; by default everything is met and the line is still to be tried."""
    right, n = pairs.after, pairs.n
    ends = criteria.share(right, n)
    known = {} if today is None else {
        "current_error_rate": {"kind": "measured", "value": today.error, "source": "a sample"}
    }  # fmt: skip
    measured = {
        "accuracy": right / n, "accuracy_ci": (ends["low"], ends["high"]), "images_labelled": 1800,
        "training_seconds": 154.0, "baseline_accuracy": pairs.before / n, "known": known,
    }  # fmt: skip
    case = business_case(measured, business)
    found = [
        criteria.gain("gain", pairs, today),
        criteria.retention(gate),
        criteria.data(curve, 0.8, 1200, reason),
        criteria.payback(case),
        criteria.gain("site", line, today) if line else not_yet(pairs, today),
    ]
    decision, following = criteria.decide(found)
    site = {
        "folder": "/srv/line-3", "classes": {"cold": 200, "good": 200},
        "pairs": {"n": 400, "before": 330, "regressed": 10, "repaired": 40},
    }  # fmt: skip
    return {
        "schema": "clr.pilot/1", "task": "solder-joints", "title": title, "version": "0.1.0",
        "made_at": "2026-11-30T08:15:00+00:00", "decision": decision, "next": following,
        "criteria": [one.as_dict() for one in found],
        "stages": {
            "before": {"train": 1200, "test": 600, "classes": ["cold", "good"], "warnings": [],
                       "majority": 0.5, "linear_probe": pairs.before / n},
            "trained": {"seconds": 154.0, "params_pct": 1.62, "bytes": 51_200,
                        "latency": {"p50": 18.2, "p95": 21.4},
                        "sentence": "solder-joints passes: 3 earlier tasks keep every answer."},
            "site": site if line else None,
        },
        "roi": case,
        "digests": {name: "sha256:" + str(at) * 64 for at, name in
                    enumerate(("images", "adapter", "backbone", "evidence", "release"))},
        "asked": {}, "reports": {"gate": "/srv/plant/.clr/tasks/solder-joints/ab12/gate.html"},
    }  # fmt: skip
