"""Who tries what at the registry's server, and what comes of it: the rows of docs/review.md."""
