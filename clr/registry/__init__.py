"""The MLflow registry: runs, adapter versions, releases, model cards and plots."""
