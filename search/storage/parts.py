"""`study.journal` in a bucket, where nothing can be appended to: a file, and the entries since then as parts beside it.

Each entry goes up as a part of its own before its verdict counts, so a search loses nothing with its driver's machine,
and an entry costs the same whether it is the tenth or the ten thousandth. Parts bear the offset at which they belong,
under the name of the search that wrote them. A search that goes on writes what it found as one file and then puts its
own name to the run: entries of one that still runs elsewhere are refused from then on.
"""

from __future__ import annotations

from uuid import uuid4

from evaluation.errors import InputError
from search.storage.mirror import Mirror

WHOLE = "study.journal"
PARTS = "study.parts"
OWNER = f"{PARTS}/owner"


class JournalParts:
    """The journal of one run in a bucket."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._owner = uuid4().hex

    def read(self) -> bytes:
        """The journal as it stands.

        Raises:
            InputError: a part is missing.
        """
        text, owner = self._mirror.read(WHOLE) or b"", self._mirror.read(OWNER)
        parts = sorted(self._mirror.there(f"{PARTS}/{owner.decode()}")) if owner else []
        for name in parts:
            offset = int(name.rpartition("/")[2])
            if offset > len(text):
                raise InputError(f"{self._mirror.url}/{name}: the entries before it are missing; expected all parts")
            if offset == len(text):
                text += self._mirror.read(name) or b""
        return text

    def take_over(self) -> bytes:
        """The journal as it stands; from now on this process alone adds to it."""
        text, earlier = self.read(), list(self._mirror.there(PARTS))
        if text:
            self._mirror.write(WHOLE, text)
        self._mirror.write(OWNER, self._owner.encode())
        self._mirror.delete([name for name in earlier if name != OWNER])
        return text

    def add(self, offset: int, entries: bytes) -> None:
        """Keep entries that begin at a byte of the journal.

        Raises:
            OSError: another search has taken the run over, or the bucket cannot be written.
        """
        if self._mirror.read(OWNER) != self._owner.encode():
            raise OSError(f"{self._mirror.url}: another search has gone on with this run")
        self._mirror.write(f"{PARTS}/{self._owner}/{offset:015d}", entries)
