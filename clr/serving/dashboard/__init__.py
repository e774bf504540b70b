"""The dashboard of the prediction server: what each task did, costs and brings, on one page."""
