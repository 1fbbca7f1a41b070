"""The service against its own OpenAPI document: whatever is sent, no 5xx, and answers as described."""

from __future__ import annotations

import hypothesis
import pytest

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (make test does it)")

from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
"""All but those that want whatever fits the document accepted: it cannot say which voices there are."""


@pytest.fixture(scope="module")
def api(start):
    service = start({"server.requests_per_minute": 1_000_000})
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=(hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much),
)
def test_whatever_is_sent(case):
    response = case.call()
    assert response.headers["x-request-id"]
    case.validate_response(response, checks=CHECKS)
