"""How a folder appears whole, and what becomes of the one that it replaces."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from evaluation.errors import InputError
from trainables.export import manifest
from trainables.export.manifest import MANIFEST, appearing, check_apart, left_behind, verify


def exported(dest: Path, text: str, force: bool = False) -> None:
    with appearing(dest, force) as aside:
        (aside / "file").write_text(text)


def test_what_a_killed_export_left_goes_with_the_next_one_and_a_living_ones_stays(tmp_path: Path) -> None:
    dest = tmp_path / "out"
    for name in (".out-abcd_123", ".out-notours", ".outer-abcd_123"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    assert [path.name for path in left_behind(dest)] == [".out-abcd_123"]
    with appearing(dest, force=True) as living:
        with appearing(dest) as other:
            (other / "file").write_text("second")
            assert [path.name for path in left_behind(dest)] == [".out-abcd_123"]
        assert living.is_dir()
        assert {path.name for path in tmp_path.iterdir()} == {"out", living.name, ".out-notours", ".outer-abcd_123"}
        (living / "file").write_text("first")
    assert (dest / "file").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out-notours", ".outer-abcd_123"}


@pytest.mark.parametrize("wrong", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("step", ["write_manifest", "settle", "rename"])
def test_what_was_there_stays_when_its_successor_cannot_be_put_in_place(
    tmp_path: Path, wrong: BaseException, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(tmp_path / "out", "first")
    rename, renames = Path.rename, []

    def fail(*_: object) -> None:
        raise wrong

    def fail_second(path: Path, target: Path) -> Path:
        renames.append(target)
        if len(renames) == 2:
            raise wrong
        return rename(path, target)

    if step == "rename":
        monkeypatch.setattr(Path, "rename", fail_second)
    else:
        monkeypatch.setattr(manifest, step, fail)
    with pytest.raises(type(wrong)):
        exported(tmp_path / "out", "second", force=True)
    assert (tmp_path / "out" / "file").read_text() == "first"
    verify(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("renames", [1, 2, 3])
def test_what_was_there_is_there_again_after_a_kill_between_the_renames(tmp_path: Path, renames: int) -> None:
    """Killed, for real, on entering the n-th rename: nothing moved, the old one moved, both moved."""
    dest, rename = tmp_path / "out", Path.rename
    exported(dest, "first")
    child = os.fork()
    if not child:  # pragma: no cover
        left = [renames]

        def killed(path: Path, target: Path) -> Path:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(path, target)

        Path.rename = killed  # type: ignore[method-assign, assignment]
        exported(dest, "second", force=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert dest.exists() == (renames != 2)
    assert any(path.suffix == ".old" for path in left_behind(dest)) == (renames == 3)  # `embtune clean` removes them
    with pytest.raises(InputError, match="exists already"):
        exported(dest, "third")
    assert (dest / "file").read_text() == ("second" if renames == 3 else "first")
    verify(dest)
    exported(dest, "third", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_replaces_exported_models_and_empty_folders_alone(tmp_path: Path) -> None:
    for name in (MANIFEST, "modules.json", "adapter_config.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
        exported(tmp_path / name, "new", force=True)
    (tmp_path / "empty").mkdir()
    exported(tmp_path / "empty", "new", force=True)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name in ("runs", "file"):
        with pytest.raises(InputError, match="not an exported model") as refused:
            exported(tmp_path / name, "new", force=True)
        assert "\n" not in str(refused.value)
    assert (tmp_path / "runs" / "demo").is_dir()


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    for force, inside, told in ((False, MANIFEST, "exists already"), (True, "precious", "not an exported model")):
        dest = tmp_path / inside
        with pytest.raises(InputError, match=told), appearing(dest, force):
            dest.mkdir()
            (dest / inside).touch()
        assert (dest / inside).exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_an_export_is_made_from_is_not_written_into(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "demo"
    for dest in (run, run / "best", run.parent, tmp_path, run / ".." / "demo"):
        with pytest.raises(InputError, match="expected a folder of its own"):
            check_apart(dest, run)
    check_apart(tmp_path / "runs" / "demo2", run)


def test_left_overs_that_cannot_be_looked_at_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are another user's."""
    (tmp_path / ".out-abcd_123").mkdir()
    whole = os.open

    def refused(path: Path, flags: int, *rest: int) -> int:
        if Path(path).name == ".out-abcd_123":
            raise PermissionError(errno.EACCES, "Permission denied")
        return whole(path, flags, *rest)

    monkeypatch.setattr(os, "open", refused)
    exported(tmp_path / "out", "first")
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out-abcd_123"}
