"""Compare methods: what units of work have measured in, statistics, verdicts and a page out.

Pure: files, training and MLflow are flows/compare*.py's. Imports the gate, never PyTorch.
"""
