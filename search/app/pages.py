"""The pages that people see. Plain HTML: forms and links, no script."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from evaluation.errors import InputError
from search.app.access import COOKIE, same
from search.app.ask import SHOWN, Passage, QuestionError
from search.app.links import View
from search.app.service import Service
from search.app.wording import TONGUES, wording

HERE = Path(__file__).parent
STYLE = (HERE / "style.css").read_text(encoding="utf-8")
THUMBS = ("up", "down", "none")
Show = Callable[..., HTMLResponse]


def page_routes(service: Service, token: str | None, described: Callable[[], dict[str, Any]]) -> APIRouter:
    """Every page, none of them in the OpenAPI description, which `described` gives."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    show = renderer(service)

    @routes.get("/")
    async def ask(request: Request) -> Response:
        view = View.of(request)
        if view.question is None:
            return show("ask", view)
        try:
            asked, entry = await service.ask(view, SHOWN)
        except QuestionError as error:
            return show("ask", view, 400, problem=wording(view.tongue)[error.why])
        except InputError as error:
            return show("ask", view, 500, problem=wording(view.tongue)["failed"], reason=str(error))
        log = service.log
        thumbs = await service.read(lambda: log.thumbs(asked.cleaned.searched)) if log else {}
        pieces, failed = None, None
        if view.answer and service.llm:
            try:
                pieces = await service.answer(asked)
            except InputError as error:
                failed = str(error)
        # Where there is no answer, thumbs and the other language do not ask for one again.
        seen = replace(view, answer=pieces is not None, entry=entry)
        return show("ask", seen, asked=asked, thumbs=thumbs, pieces=pieces, failed=failed)

    @routes.post("/thumb")
    async def thumb(request: Request) -> Response:
        view = View.of(request)
        form = {key: value for key, value in (await request.form()).items() if isinstance(value, str)}
        place, value = form.get("place", ""), form.get("thumb", "")
        known = view.entry is not None and place.isascii() and place.isdigit() and len(place) < 16 and value in THUMBS
        if not known or not await service.judge(view.entry or 0, int(place), value):  # type: ignore[arg-type]
            return show("problem", view, 400, problem=wording(view.tongue)["missing"])
        return RedirectResponse(f"/?{view.query()}#results", 303)

    @routes.get("/admin")
    async def admin(request: Request) -> Response:
        view, log = View.of(request), service.log
        if log is None:
            return missing(request)
        entries, pairs = await service.read(lambda: (log.latest(), log.pairs()))
        return show("admin", view, entries=entries, rows=len(pairs))

    @routes.get("/admin/pairs.jsonl")
    async def export(request: Request) -> Response:
        log = service.log
        if log is None:
            return missing(request)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in await service.read(log.pairs)]
        headers = {"Content-Disposition": 'attachment; filename="judged.jsonl"'}
        return Response("".join(lines), media_type="application/jsonl", headers=headers)

    @routes.get("/docs")
    async def docs(request: Request) -> Response:
        return show("docs", View.of(request), described=described())

    @routes.get("/token")
    async def token_form(request: Request) -> Response:
        return show("token", View.of(request), wrong=False)

    @routes.post("/token")
    async def token_given(request: Request) -> Response:
        given = (await request.form()).get("token")
        if not isinstance(given, str) or not same(given.strip(), token):
            return show("token", View.of(request), 401, wrong=True)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, given.strip(), httponly=True, samesite="strict")
        return response

    @routes.get("/style.css")
    async def style() -> Response:
        return Response(STYLE, media_type="text/css")

    def missing(request: Request) -> HTMLResponse:
        view = View.of(request)
        return show("problem", view, 404, problem=wording(view.tongue)["missing"])

    return routes


def handle_missing(app: FastAPI, service: Service) -> None:
    """Show people a page where there is none; programs get FastAPI's JSON."""
    show = renderer(service)

    @app.exception_handler(404)
    async def missing(request: Request, error: Exception) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return Response('{"detail":"Not Found"}', 404, media_type="application/json")
        view = View.of(request)
        return show("problem", view, 404, problem=wording(view.tongue)["missing"])


def renderer(service: Service) -> Show:
    """`show(template, view, status, **values)`. All text is escaped, and a name that a template lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clock"] = _clock

    def show(template: str, view: View, status: int = 200, **values: Any) -> HTMLResponse:
        words = wording(view.tongue)
        text = environment.get_template(f"{template}.html.j2").render(
            {
                "asked": None,
                "problem": None,
                "reason": None,
                "service": service,
                "view": view,
                "w": words,
                "tongues": TONGUES,
            }
            | {"change": lambda passage, first: change(passage, first, words)}
            | values
        )
        # A lone surrogate in a corpus is no UTF-8: it is shown as a question mark.
        return HTMLResponse(text.encode("utf-8", "replace"), status)

    return show


def change(passage: Passage, first: str, words: Any) -> tuple[str, str, str]:
    """How a rank differs from the first model's: class, sign, and the sentence that a screen reader says."""
    if passage.before is None:
        return "up", "▲ +", words["new"].format(first=first)
    by = passage.before - passage.rank
    if by == 0:
        return "same", "=", words["same"].format(first=first)
    kind, sign = ("up", "▲") if by > 0 else ("down", "▼")
    return kind, f"{sign} {abs(by)}", words[kind].format(by=abs(by), rank=passage.before, first=first)


def _clock(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
