"""The one table, told over HTTP, and what is logged by it."""

from contextlib import suppress

import grpc
import pytest

from embedders import errors as embedder_errors
from service import errors
from service.error_table import TABLE, log_failure, rule_for
from vecgate.client import VecgateError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidRequest([errors.Violation("f", "d")]), 400),
        (errors.EmbedderNotFound("x"), 404),
        (errors.CollectionNotFound("x"), 404),
        (errors.CollectionAlreadyExists("x"), 409),
        (errors.SpaceMismatch(vector="v", bound="a", given="b", bound_dimension=1, given_dimension=1), 409),
        (errors.StoreUnavailable("x"), 503),
        (errors.StoreRejected("x"), 424),
        (embedder_errors.EmbedderUnavailable("x"), 503),
        (embedder_errors.EmbedderOverloaded("x"), 503),
        (embedder_errors.EmbedderRateLimited("x"), 429),
        (embedder_errors.CredentialRejected("x"), 424),
        (embedder_errors.ModelGone("x"), 424),
        (embedder_errors.AnswerInvalid("x"), 500),
        (TimeoutError(), 504),
        (ValueError(), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_exception_has_its_http_status(error: Exception, status: int) -> None:
    assert rule_for(error).http == status


def test_what_may_be_tried_again_is_so_over_both_transports() -> None:
    assert {rule.http.value for rule in TABLE.values() if rule.retry} == {429, 503}
    assert all(rule.retry for rule in TABLE.values() if rule.http in (429, 503))


def test_what_was_logged_holds_no_frames_however_exceptions_led_to_it() -> None:
    one, other, third = ValueError("one"), KeyError("other"), OSError("third")
    group = ExceptionGroup("several", [third])
    for each in (one, other, third):
        with suppress(Exception):
            raise each
    one.__cause__, other.__cause__, other.__context__ = other, one, group

    log_failure(one, "a method")

    assert [each.__traceback__ for each in (one, other, third)] == [None, None, None]


def test_what_is_wrong_with_a_request_as_a_whole_is_said_without_a_path() -> None:
    error = errors.InvalidRequest([errors.Violation("", "cannot be parsed"), errors.Violation("id", "is required")])

    assert str(error) == "cannot be parsed; id: is required"


def test_an_error_without_a_message_is_named_by_its_code_alone() -> None:
    assert str(VecgateError(grpc.StatusCode.UNAVAILABLE, "")) == "UNAVAILABLE"
    assert str(VecgateError(grpc.StatusCode.INTERNAL, "broken", reason="INTERNAL")) == "INTERNAL: broken"
