"""``clr compare``: methods on the same tasks, seeds and budget, and a report."""
