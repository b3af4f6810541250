"""Bases that come with a spec, put where every node of a cluster sees them: beside the runs."""

from __future__ import annotations

import shutil
from hashlib import file_digest, sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from search.paths import BASES, RunFolder
from search.spec.local_bases import with_bases
from search.spec.sections import SearchSpec


def share_bases(spec: SearchSpec, runs: Path) -> SearchSpec:
    """The spec with its bases that lie beside it, or in the run that it continues, copied once to the runs.

    A base is kept under a hash of its files, so that a search that goes on finds the one that it began with.
    """
    near = set(spec.local_bases)
    if spec.continue_from is not None and not Path(spec.continue_from).is_absolute():
        near.add(str(RunFolder((spec.folder / spec.continue_from).resolve()).best))
    if not near:
        return spec
    moved = {base: str(_shared(Path(base), runs.resolve() / BASES)) for base in near}
    changed = with_bases({"space": spec.space, "start": spec.start}, lambda base: moved.get(base, base))
    return spec.model_copy(update=changed)


def _shared(base: Path, folder: Path) -> Path:
    files = sorted(path for path in base.rglob("*") if path.is_file())
    digest = sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(base)} {file_digest(file, 'sha256').hexdigest()}\n".encode())
    place = folder / f"{base.name}-{digest.hexdigest()[:12]}"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".coming-") as aside:
            copy = shutil.copytree(base, Path(aside) / base.name)
            copy.rename(place)
    return place
