"""Flows: the pipeline as Prefect runs it, one file a flow, and the command line."""
