"""`embtune try`. Nothing heavy is imported before it runs."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)


@click.command(name="try")
@click.argument("run", type=FOLDER)
@click.option("--corpus", type=FOLDER, help="BEIR folder or .jsonl file of passages; without it the run's own")
@click.option("--model", "models", multiple=True, help="one more model, at most two; hub id, model folder or run")
@click.option(
    "--language",
    "languages",
    multiple=True,
    default=("fr", "en"),
    show_default=True,
    help="of questions; first the corpus's",
)
@click.option("--translate", help="Marian model (opus-mt) that translates other languages; hub id or folder")
@click.option("--log", type=FOLDER, help="SQLite file that keeps questions and thumbs; without it nothing is kept")
@click.option(
    "--llm", help="URL of an OpenAI-compatible endpoint that answers from the passages; its key: OPENAI_API_KEY"
)
@click.option("--llm-model", help="that the endpoint is asked for; without it the only one that it has")
@click.option("--host", help="address to listen on, with a token; without it localhost, for this machine alone")
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0 takes a free one")
def try_models(
    run: Path,
    corpus: Path | None,
    models: tuple[str, ...],
    languages: tuple[str, ...],
    translate: str | None,
    log: Path | None,
    llm: str | None,
    llm_model: str | None,
    host: str | None,
    port: int,
) -> None:
    """Serve a page that asks a run's base and best model the same question. Needs the extra [app]."""
    try:
        from search.app.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("search", "evaluation", "trainables"):
            raise
        from evaluation.errors import InputError

        raise InputError(
            f"embtune try: no package {error.name}, expected the extra: pip install 'embtune[app]'"
        ) from None

    serve(
        run,
        corpus=corpus,
        models=models,
        host=host,
        port=port,
        languages=languages,
        translate=translate,
        log=log,
        llm=llm,
        llm_model=llm_model,
        say=click.echo,
    )
