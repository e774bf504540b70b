"""Standard forms of an audit, each made of the document ``clr.audit/1`` alone (docs/audit.md)."""
