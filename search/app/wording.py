"""What the page says, in English and in French."""

from __future__ import annotations

from collections.abc import Mapping

TONGUES = ("en", "fr")
# key -> (English, French)
WORDING = {
    "title": ("Ask both models", "Interroger les deux modèles"),
    "question": ("Your question", "Votre question"),
    "ask": ("Search", "Chercher"),
    "hint": (
        "The passages of each model stand side by side, best first.",
        "Les passages de chaque modèle s'affichent côte à côte, le meilleur d'abord.",
    ),
    "corpus": ("{count} passages of {name}.", "{count} passages de {name}."),
    "smoke": (
        "SMOKE RUN. Tiny stand-in models with random weights: no score on this page means anything.",
        "ESSAI À VIDE. Modèles factices aux poids aléatoires : aucun score de cette page n'a de sens.",
    ),
    "empty": ("Type a question.", "Saisissez une question."),
    "long": (
        "The question is too long: at most 2,000 characters.",
        "La question est trop longue : 2 000 caractères au plus.",
    ),
    "failed": ("The question could not be searched:", "La question n'a pas pu être recherchée :"),
    "no_answer": ("The endpoint gave no answer:", "Le modèle qui répond n'a pas donné de réponse :"),
    "error": ("That did not work", "Cela n'a pas fonctionné"),
    "missing": ("There is no such page.", "Cette page n'existe pas."),
    "steps": ("What was done to the question", "Ce qui a été fait de la question"),
    "searched": ("Searched:", "Recherche faite :"),
    "untouched": (
        "The question is searched as it was typed.",
        "La question est recherchée telle qu'elle a été saisie.",
    ),
    "without": ("Search without clean-up", "Chercher sans nettoyage"),
    "with": ("Search with clean-up", "Chercher avec nettoyage"),
    "language": ("Language", "Langue"),
    "translation": ("Translation", "Traduction"),
    "spelling": ("Spelling", "Orthographe"),
    "acronym": ("Acronym", "Sigle"),
    "undo": ("Undo", "Annuler"),
    "redo": ("Do it", "Appliquer"),
    "off": ("(not done)", "(non fait)"),
    "known": (
        "This question is known: ✓ marks the passages that answer it.",
        "Question connue : ✓ marque les passages qui y répondent.",
    ),
    "learned": (
        "It is of the training part: the best model has learned its answers.",
        "Elle est de la partie d'entraînement : le meilleur modèle en a appris les réponses.",
    ),
    "relevant": ("answers the question", "répond à la question"),
    "base": ("base", "base"),
    "best": ("best (tuned)", "meilleur (affiné)"),
    "same": ("same rank as {first}", "même rang que {first}"),
    "up": ("up {by} (rank {rank} with {first})", "monte de {by} (rang {rank} avec {first})"),
    "down": ("down {by} (rank {rank} with {first})", "descend de {by} (rang {rank} avec {first})"),
    "new": ("new: not among the first 100 of {first}", "nouveau : pas parmi les 100 premiers de {first}"),
    "times": ("encoded in {encode} ms, searched in {search} ms", "encodée en {encode} ms, cherchée en {search} ms"),
    "score": ("cosine", "cosinus"),
    "thumb_up": ("Answers it", "Répond"),
    "thumb_down": ("Does not", "Ne répond pas"),
    "thumb_none": ("Take back", "Retirer"),
    "passage": ("passage {rank}", "passage {rank}"),
    "answer": ("Answer from the passages", "Répondre d'après les passages"),
    "answered": ("Answer", "Réponse"),
    "cites": ("Numbers are passages of {model}.", "Les numéros sont les passages de {model}."),
    "admin": ("Questions asked", "Questions posées"),
    "back": ("Ask a question", "Poser une question"),
    "api": ("For programs", "Pour les programmes"),
    "export": ("Judged questions as training pairs (JSONL)", "Questions jugées en paires d'entraînement (JSONL)"),
    "export_hint": (
        "Rows: {rows}. Name the file as the source of a spec with continue_from to train on them.",
        "Lignes : {rows}. Nommez le fichier comme source d'une spec avec continue_from pour s'entraîner dessus.",
    ),
    "nothing": ("No question yet.", "Aucune question pour l'instant."),
    "at": ("time", "heure"),
    "asked": ("asked", "posée"),
    "changes": ("clean-up", "nettoyage"),
    "models": ("models", "modèles"),
    "thumbs": ("thumbs", "avis"),
    "counted": ("{up} up, {down} down", "{up} pour, {down} contre"),
    "token": ("Token", "Jeton"),
    "token_hint": (
        "It was printed where `embtune try` was started.",
        "Il a été affiché au lancement de « embtune try ».",
    ),
    "token_wrong": ("That is not the token.", "Ce n'est pas le jeton."),
    "enter": ("Enter", "Entrer"),
    "skip": ("Skip to the results", "Aller aux résultats"),
}


def wording(tongue: str) -> Mapping[str, str]:
    """Every text of the page in a language, en or fr."""
    place = TONGUES.index(tongue)
    return {key: texts[place] for key, texts in WORDING.items()}


def preferred(accepted: str) -> str:
    """The language that an Accept-Language header likes best, English where it names neither.

    >>> preferred("de, fr-CH;q=0.9, en;q=0.8"), preferred("es")
    ('fr', 'en')
    """
    best = ("en", 0.0)
    for entry in accepted.split(","):
        code, _, weight = entry.strip().partition(";q=")
        tongue = code[:2].lower()
        try:
            quality = float(weight or 1)
        except ValueError:
            continue
        if tongue in TONGUES and quality > best[1]:
            best = (tongue, quality)
    return best[0]
