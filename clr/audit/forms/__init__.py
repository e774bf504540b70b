"""Standard forms of an audit, each made of its document (docs/audit-forms.md)."""
