"""The retention gate: pure functions from evidence to a verdict (docs/gate.md)."""

from clr.gate.checks import Check
from clr.gate.evidence import EarlierTask, Limits, Newcomer, Offer, Snapshot
from clr.gate.report import gate_html
from clr.gate.verdict import GateReport, decide

__all__ = [
    "Check",
    "EarlierTask",
    "GateReport",
    "Limits",
    "Newcomer",
    "Offer",
    "Snapshot",
    "decide",
    "gate_html",
]
