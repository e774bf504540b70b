"""The record of who did what, when, to which bytes: kept so that a change to it shows."""
