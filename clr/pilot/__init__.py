"""A pilot of one task: what its three stages answer, and the page that a manager reads."""
