"""The service against its own OpenAPI document: whatever is sent, no 5xx, and answers as described."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest

schemathesis: Any = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

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

OPERATIONS = [
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/v1/capacity"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/v1/audio/speech"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/realtime/client_secrets"),
]


@pytest.fixture(scope="module")
def api(start) -> Any:
    service = start({"server.requests_per_minute": 1_000_000})
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def test_the_document_names_every_operation(api):
    assert sorted((o.ok().method.upper(), o.ok().path) for o in api.get_all_operations()) == sorted(
        OPERATIONS
    )
    assert "422" not in str(api.raw_schema)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*operation, "positive") for operation in OPERATIONS]
    # Of the others nothing can be wrong: they take nothing but a name.
    + [(*operation, "negative") for operation in OPERATIONS if operation[0] == "POST"],
)
def test_whatever_is_sent(api, method, path, mode):
    wanted = schemathesis.GenerationMode(mode)
    cases = api[path][method].as_strategy(generation_mode=wanted)

    @hypothesis.settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
    )
    @hypothesis.given(case=cases)
    def check(case: Any) -> None:
        response = case.call()
        assert response.headers["x-request-id"]
        case.validate_response(response, checks=CHECKS)

    check()
