"""Task folders, manifests, validation and data versions."""
