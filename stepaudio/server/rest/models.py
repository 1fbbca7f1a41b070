"""``/v1/models``: what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from stepaudio.server.rest.shared import REFUSALS, Serving, no_model, refusals

if TYPE_CHECKING:
    from stepaudio.server.app import Service

router = APIRouter()


@router.get("/models", tags=["models"], responses=REFUSALS)
async def list_models(service: Serving) -> dict[str, Any]:
    """The models there are."""
    return {"object": "list", "data": [_model(service, id, task) for id, task in service.models().items()]}


@router.get("/models/{model:path}", tags=["models"], responses={**REFUSALS, **refusals(404)})
async def get_model(model: str, service: Serving) -> dict[str, Any]:
    """One model."""
    task = service.models().get(model)
    if task is None:
        raise no_model(model)
    return _model(service, model, task)


def _model(service: Service, id: str, task: str) -> dict[str, Any]:
    row = {"id": id, "object": "model", "created": service.created, "owned_by": "stepaudio", "task": task}
    return row if task == "chat" else {**row, "languages": ["en"] if id == "hibari" else ["en", "zh"]}
