"""Exports that are killed: whatever they leave, nothing looks complete."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.errors import InputError
from tests.conftest import TinyBase
from tests.kit.trained import trained
from trainables.config import TrialConfig
from trainables.export.manifest import MANIFEST, verify

# Where the exporting process kills itself: on entering the call of this name for the n-th time.
POINTS = {
    "merged, nothing written": ("trainables.export.export", "save_model", 1),
    "weights written, no tokenizer": ("transformers.PreTrainedTokenizerBase", "save_pretrained", 1),
    "written, not yet reloaded": ("trainables.export.export", "reloaded", 1),
    "checked, no manifest": ("trainables.export.manifest", "write_manifest", 1),
    "complete, under its hidden name": ("pathlib.Path", "rename", 1),
}
# One process for all: each point in a fork of it, as importing torch takes longer than an export.
SCRIPT = """
import functools, os, pkgutil, signal, sys
from pathlib import Path
import torch
from tests.kit.reload import reloading_here
from tests.soak.test_killed_exports import POINTS, config_of
from trainables.export.export import export_model
from trainables.export.mix import Mix

torch.set_num_threads(1)
config, checkpoint, out = config_of(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])

def export(dest):
    mix, record = Mix.of(config, checkpoint), {"base": config.base}
    export_model(mix, dest, ["Le SG"], ["Un chat"], record, "# card\\n", force=True)

def kill_at(where, name, times):
    owner, whole = pkgutil.resolve_name(where), getattr(pkgutil.resolve_name(where), name)
    left = [times]
    @functools.wraps(whole)
    def killed(*args, **kwargs):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)
    setattr(owner, name, killed)

children = []
for number, point in enumerate(POINTS.values()):
    child = os.fork()
    if not child:
        kill_at(*point)
        export(out / str(number) / "best")
        os._exit(0)
    children.append(child)
for child in children:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
sys.stdin.readline()  # what they left has been looked at
with reloading_here():
    for number in range(len(POINTS)):
        export(out / str(number) / "best")
"""


def config_of(text: str) -> TrialConfig:
    return TrialConfig.model_validate_json(text)


def test_a_killed_export_leaves_no_folder_that_looks_complete(tiny_base: TinyBase, tmp_path: Path) -> None:
    config = trained(tmp_path / "checkpoint", tiny_base("bert"))
    out = tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, config.model_dump_json(), str(tmp_path / "checkpoint"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ends = [process.stdout.readline().strip() for _ in POINTS]
        assert ends == [str(-signal.SIGKILL)] * len(POINTS)
        look_at_what_is_left(out)
        process.communicate("\n", timeout=600)
    assert process.returncode == 0
    for number in range(len(POINTS)):  # the next export to the same place has removed it
        assert [path.name for path in (out / str(number)).iterdir()] == ["best"]
        verify(out / str(number) / "best")


def look_at_what_is_left(out: Path) -> None:
    for number in range(len(POINTS)):
        left = list((out / str(number)).iterdir())
        assert left  # it was killed at work
        assert all(path.name.startswith(".best-") for path in left)
        if number < len(POINTS) - 1:
            assert not any((path / MANIFEST).exists() for path in left)
            with pytest.raises(InputError, match="no manifest"):
                verify(left[0])
