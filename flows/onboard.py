"""Onboard a task: validate, version, baseline, train, gate, register.

Every step is keyed by the digests of what it depends on and finishes once
(flows/steps.py), so a killed run is finished by the same command.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task

from flows import output, provenance
from flows.session import Session, open_session
from flows.steps import digest_of, once

LOG = logging.getLogger("clr")
Result = dict[str, Any]
