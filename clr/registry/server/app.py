"""The MLflow server with the policy in it: entry point ``clr`` of the group ``mlflow.app``.

Order of one request: MLflow authenticates; `_decide` reads the act, waits for its turn, looks
up the facts, asks the policy, writes the ledger; MLflow's handler acts; `_follow` writes what
follows a review; `_leave` gives the turn back. Whatever goes wrong before the handler, the act
is not done.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, UsageError

if TYPE_CHECKING:
    from flask import Flask, Response

    from clr.registry.acts import Decision
    from clr.registry.server.asked import Asked
    from clr.registry.server.keeper import Keeper

LOG = logging.getLogger("mlflow.clr")
_NOT_OURS = "MLflow's own permissions refuse this. `clr users list` shows who may do what."


def create_app(app: Flask | None = None) -> Any:
    """Return MLflow's server with basic auth and the policy in front of every act.

    Args:
        app: MLflow's Flask app; its own by default.

    Raises:
        UsageError: no workspace, a policy that is not one, or another authentication
            than MLflow's basic auth.
    """
    from mlflow.server import app as mlflow_app
    from mlflow.server import auth
    from mlflow.server.auth.config import DEFAULT_AUTHORIZATION_FUNCTION

    from clr.registry.server.keeper import Keeper
    from clr.registry.server.ledger import add_addresses
    from clr.registry.server.quiet_log import leave_out_polls
    from clr.settings import load_settings

    if auth.auth_config.authorization_function != DEFAULT_AUTHORIZATION_FUNCTION:
        raise UsageError(
            "The registry server knows its users by MLflow's basic auth only.",
            fix="Take authorization_function out of the auth configuration.",
        )
    flask_app = mlflow_app if app is None else app
    settings = load_settings()
    keeper = Keeper(settings)
    if settings.registry_artifacts:
        from clr.registry.server.config import artifacts_url
        from clr.registry.server.passing import pass_through

        pass_through(artifacts_url(settings))
    leave_out_polls()
    add_addresses(flask_app, keeper)
    served = auth.create_app(flask_app)
    hooks = Hooks(keeper)
    flask_app.before_request(hooks.decide)
    flask_app.after_request(hooks.follow)
    flask_app.after_request(hooks.tell)
    flask_app.teardown_request(hooks.leave)
    flask_app.register_error_handler(RecursionError, _too_deep)
    if served is not flask_app:  # under uvicorn, where some routes are none of Flask's
        from clr.registry.server.guard import Guard

        served.add_middleware(Guard, keeper=keeper, routes=list(served.routes))
    return served


class Hooks:
    """What happens around each request that Flask serves."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def decide(self) -> Response | None:
        """Let the request go on, or answer it with a refusal."""
        from flask import g

        from clr.registry.server.endpoints import PUBLIC

        endpoint = _endpoint()
        if not endpoint:
            return None  # no such address: Flask says so
        user = g.get("mlflow_authenticated_user")
        if not user:
            return None if endpoint in PUBLIC else _answer(401, "UNAUTHENTICATED", "Sign in first.")
        return self._judge(endpoint, str(user))

    def _judge(self, endpoint: str, user: str, *, doing: bool = True) -> Response | None:
        from mlflow.exceptions import MlflowException

        from clr.registry.server.asked import UNDECIDED, Malformed, Refusal

        try:
            return self._decide(endpoint, user, doing)
        except Refusal as refusal:
            return self._refuse(refusal.asked, user, str(refusal))
        except Malformed as error:
            return self._unreadable(endpoint, user, str(error))
        except MlflowException as error:
            status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
            if status >= 500:
                LOG.exception("An act of %s could not be decided.", endpoint)
            return _answer(status, error.error_code, error.message)
        except ClrError as error:
            LOG.error("An act of %s could not be decided: %s", endpoint, error)
            return _answer(503, "TEMPORARILY_UNAVAILABLE", f"Nothing was done. {error}")
        except Exception:
            LOG.exception("An act of %s could not be decided.", endpoint)
            return _answer(503, "TEMPORARILY_UNAVAILABLE", UNDECIDED)

    def _decide(self, endpoint: str, user: str, doing: bool) -> Response | None:
        from flask import g, request

        from clr.registry.acts import Kind, State
        from clr.registry.policy import decide
        from clr.registry.server import amend, record
        from clr.registry.server.facts import gather, next_number
        from clr.registry.server.origin import foreign_page

        asked, keeper = _read(endpoint), self._keeper
        policy = keeper.policy()
        who = policy.principal(user)
        if asked.act.kind is Kind.READ:
            decision = decide(asked.act, who, State(), policy)
            return None if decision.allowed else self._refuse(asked, user, decision.sentence)
        if problem := foreign_page(request.headers.items()):
            return self._refuse(asked, user, problem)
        state = State()
        if who.roles:  # a stranger is refused without a look at anything
            self._hold(asked)
            state = gather(asked, keeper.ledger, policy)
        decision = decide(asked.act, who, state, policy)
        if not decision.allowed:
            return self._refuse(asked, user, decision.sentence)
        if not doing:
            return self._refuse(asked, user, _NOT_OURS)
        amend.request_body(asked.act, user, decision)
        if asked.act.kind is Kind.CREATE_VERSION:
            asked = replace(asked, act=replace(asked.act, version=next_number(asked.act.model)))
        seq = record.before(keeper.ledger, asked.act, who, state, decision, policy)
        g.clr_done = (asked, user, seq, decision)
        return None

    def _hold(self, asked: Asked) -> None:
        """Wait until nobody else changes what the act is about; `leave` gives it back."""
        from flask import g

        from clr.registry.acts import Kind
        from clr.registry.server.asked import plain
        from clr.registry.server.record import REGISTRY

        if asked.act.kind is Kind.CREATE_VERSION:
            g.clr_places = self._keeper.places.settle(plain((asked.run_id, asked.model_id)))
        elif asked.ids:
            g.clr_places = self._keeper.places.write(plain(asked.ids))
        if asked.act.kind in REGISTRY:
            g.clr_turn = self._keeper.turn()

    def _refuse(self, asked: Asked, user: str, sentence: str) -> Response:
        from flask import g

        from clr.registry.server import record

        g.clr_refused = True
        record.refusal(self._keeper.ledger, asked.act, user, sentence)
        return _answer(403, "PERMISSION_DENIED", sentence)

    def _unreadable(self, endpoint: str, user: str, sentence: str) -> Response:
        from flask import g

        from clr.registry.acts import Act, Kind
        from clr.registry.server import record

        g.clr_refused = True
        act = Act(Kind.OTHER, endpoint=endpoint)
        record.refusal(self._keeper.ledger, act, user, sentence)
        return _answer(400, "INVALID_PARAMETER_VALUE", sentence)

    def follow(self, response: Response) -> Response:
        """Write what follows the act, or that it failed."""
        from flask import g

        done = g.get("clr_done")
        if done is None:
            return self._in_our_words(response)
        asked, user, seq, decision = done
        act = asked.act
        if response.status_code >= 400:
            from clr.registry.server import record

            if seq:
                record.failure(self._keeper.ledger, act, user, seq, response.status_code)
            return response
        self._after(asked, user, decision, response)
        return response

    def tell(self, response: Response) -> Response:
        """Say in the answer to ``/health`` that a policy is in force here, and which one."""
        from flask import request

        from clr.registry.store import POLICY_HEADER

        if request.endpoint == "health":
            response.headers[POLICY_HEADER] = self._keeper.policy().digest
        return response

    def _after(self, asked: Asked, user: str, decision: Decision, response: Response) -> None:
        from clr.registry.acts import Kind
        from clr.registry.names import PROMOTION
        from clr.registry.server import amend, record
        from clr.registry.server.asked import plain
        from clr.registry.server.stamp import users_changed

        act = asked.act
        if act.kind is Kind.CREATE_VERSION:
            self._keeper.places.forget(plain((asked.run_id, asked.model_id)))
            record.number_given(self._keeper.ledger, act, user, response.get_json(silent=True))
        if act.kind in (Kind.MANAGE_USER, Kind.SET_PASSWORD):
            users_changed(self._keeper.settings.state)
        # what became of a promotion follows a review whose tags a killed server may owe
        if act.kind is Kind.SET_VERSION_TAG and (decision.value or act.name == PROMOTION):
            try:
                amend.review_tags(act, self._keeper.ledger, self._keeper.policy())
            except Exception:  # the ledger has the review; these tags only repeat it
                LOG.exception("The tags of a review of %s could not be written.", act.subject)

    def _in_our_words(self, response: Response) -> Response:
        """Say and record why, where MLflow's own permissions refused before the policy could."""
        from flask import g

        user, endpoint = g.get("mlflow_authenticated_user"), _endpoint()
        if response.status_code != 403 or not user or not endpoint or g.get("clr_refused"):
            return response
        ours = self._judge(endpoint, str(user), doing=False)
        return response if ours is None else ours

    def leave(self, _error: BaseException | None = None) -> None:
        """Give the turn back."""
        from flask import g

        turn = g.pop("clr_turn", None)
        if turn is not None:
            self._keeper.leave(turn)
        self._keeper.places.leave(g.pop("clr_places", ()))


def _endpoint() -> str:
    """Return MLflow's name for what is asked; for an unknown act method and address, else ""."""
    from flask import request

    from clr.registry.server.endpoints import SAFE_METHODS

    if request.endpoint or request.method in SAFE_METHODS:
        return request.endpoint or ""
    return f"{request.method} {request.path}"


def _too_deep(_error: Exception) -> Response:
    return _answer(400, "INVALID_PARAMETER_VALUE", "The request is nested too deeply.")


def _read(endpoint: str) -> Asked:
    """Return what is asked; what MLflow's parser stumbles over is malformed, not our error."""
    from mlflow.exceptions import MlflowException

    from clr.registry.server.asked import Malformed, Refusal
    from clr.registry.server.endpoints import asked

    try:
        return asked(endpoint)
    except (Malformed, Refusal, MlflowException):
        raise
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise Malformed("The request cannot be read.") from error


def _answer(status: int, code: str, sentence: str) -> Response:
    from flask import Response

    from clr.registry.server.asked import error_body

    return Response(error_body(code, sentence), status=status, mimetype="application/json")
