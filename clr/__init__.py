"""CLR: one frozen vision backbone, one small adapter per task, nothing forgotten."""

__version__ = "0.1.0"
