"""The data of a search, whichever its task: checked, prepared, told, and read for stand-ins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.spec.sections import ClassificationSpec, SearchSpec

if TYPE_CHECKING:
    from rich.console import Console

    from trainables.bases.token_counts import TokenCounter
    from trainables.classification.prepared import LabelledData
    from trainables.classification.report import LabelReport
    from trainables.data.prepared import TrialData
    from trainables.data.report import DataReport


def check_data(spec: SearchSpec, tokens: TokenCounter | None, source: Path | None = None) -> DataReport | LabelReport:
    """The report on a spec's data.

    Args:
        tokens: counts lengths in tokens of a base; None: lengths are in characters.
        source: a file in place of the spec's.
    """
    data: Any = spec.data if source is None else spec.data.model_copy(update={"source": str(source)})
    if isinstance(spec, ClassificationSpec):
        from trainables.classification.check import check_labelled

        return check_labelled(data, spec.folder, spec.seed, tokens)[1]
    from trainables.check.check import check_source

    return check_source(data, spec.folder, spec.seed, earlier=spec.earlier_data, tokens=tokens)[1]


def prepare_data(spec: SearchSpec, out: Path, tokens: TokenCounter | None) -> DataReport | LabelReport:
    """Write the parts of a run's data folder, and their report last.

    Raises:
        InputError: the data cannot be used.
    """
    if isinstance(spec, ClassificationSpec):
        from trainables.classification.prepared import prepare_labelled

        return prepare_labelled(spec.data, spec.folder, spec.seed, out, tokens=tokens)
    from trainables.prepare import prepare

    return prepare(spec.data, spec.folder, spec.seed, out, earlier=spec.earlier_data, tokens=tokens)


def with_labels(spec: ClassificationSpec, labels: Sequence[str]) -> ClassificationSpec:
    """The spec with the classes of its data written out."""
    return spec.model_copy(update={"data": spec.data.model_copy(update={"labels": tuple(labels)})})


def report_of(spec: SearchSpec, out: Path) -> DataReport | LabelReport:
    """The report of a run's data folder.

    Raises:
        InputError: the folder is not whole.
    """
    if isinstance(spec, ClassificationSpec):
        from trainables.classification.prepared import load_label_report

        return load_label_report(out)
    from trainables.data.prepared import load_report

    return load_report(out)


def require_same_data(spec: SearchSpec, out: Path) -> None:
    """Refuse a source that has not the rows any more that a run's parts were written from.

    Raises:
        InputError: what differs.
    """
    if isinstance(spec, ClassificationSpec):
        from trainables.classification.prepared import require_same_examples

        require_same_examples(spec.data, spec.folder, out)
        return
    from trainables.data.same_rows import require_same_rows

    require_same_rows(spec.data, spec.folder, out, spec.earlier_data)


def print_data(report: DataReport | LabelReport, console: Console) -> None:
    """Show a report."""
    from trainables.classification.report import LabelReport, print_label_report

    if isinstance(report, LabelReport):
        print_label_report(report, console)
        return
    from trainables.check.view import print_report

    print_report(report, console)


def data_line(report: DataReport | LabelReport) -> str:
    """The parts' sizes in one line."""
    from trainables.classification.report import LabelReport

    if isinstance(report, LabelReport):
        return report.sizes()
    return ", ".join(f"{p} {n:,} rows of {report.concepts[p]:,} concepts" for p, n in report.kept.items())


def load_trial_data(task: str, out: Path) -> TrialData | LabelledData:
    """What a trial may see."""
    if task == "classification":
        from trainables.classification.prepared import LabelledData

        return LabelledData.load(out)
    from trainables.data.prepared import TrialData

    return TrialData.load(out)


def texts_of(spec: SearchSpec, rows: int, most: int) -> Iterator[str]:
    """Texts of the data for a stand-in's tokenizer.

    Args:
        rows: that are read of each file.
        most: rows that are used.
    """
    data: Any = spec.data.model_copy(update={"max_rows": rows})
    if isinstance(spec, ClassificationSpec):
        from trainables.classification.rows import Example, read_examples

        for example in islice(read_examples(data, spec.folder), most):
            if isinstance(example, Example):
                yield from filter(None, (example.text, example.text_pair))
        return
    from trainables.data.pairs import read_pairs
    from trainables.data.rows import Pair

    for pair in islice(read_pairs(data, spec.folder), most):
        if isinstance(pair, Pair):
            yield from (pair.anchor, pair.positive)
