"""The registry server: MLflow's own, with a policy that decides every act that changes something.

``app`` puts it together; ``endpoints`` turns a request into an act, ``facts`` looks up what the
policy needs to know, ``record`` writes the ledger, ``guard`` covers what MLflow serves beside
Flask. The decision itself is ``clr.registry.policy.decide``.
"""
