"""`clr audit`: gather what registry, ledger, releases and files say of one adapter; judge, tell."""
