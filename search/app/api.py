"""The same search as JSON, and a page of its OpenAPI description that needs no network."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query

from search.app.ask import LONGEST, SHOWN, Asked, QuestionError
from search.app.links import View
from search.app.searcher import DEPTH
from search.app.service import Service


def api_routes(service: Service) -> APIRouter:
    """`GET /api/search`."""
    routes = APIRouter(prefix="/api")

    @routes.get("/search", summary="Ask every model the same question")
    async def search(
        q: Annotated[str, Query(description="the question", min_length=1, max_length=LONGEST)],
        off: Annotated[
            list[str], Query(description="steps of the clean-up that are not done: all, language, spelling:WORD, ...")
        ] = [],  # noqa: B006
        on: Annotated[list[str], Query(description="suggestions of the clean-up that are taken: acronym:NAME")] = [],  # noqa: B006
        shown: Annotated[int, Query(description="passages of each model", ge=1, le=DEPTH)] = SHOWN,
    ) -> Asked:
        """What was done to the question, and the passages of each model with their cosines and ranks.

        `before` is a passage's rank with the first model, null where it is not among that one's first hundred.
        `relevant` is null where the question is not one of the data's.
        """
        try:
            asked, _ = await service.ask(View(q, frozenset(off), frozenset(on), "en"), shown)
        except QuestionError as error:
            raise HTTPException(422, str(error)) from None
        return asked

    return routes
