"""The files that start clusters: Ray takes them, and their command lines are those of Ray, embtune and a shell."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.cli import cli
from tests.kit.ray_internals import prepare_config, validate_config
from tests.test_documents import parsed

ROOT = Path(__file__).parents[3]
LAUNCHERS = [ROOT / "cluster.yaml", ROOT / "docs" / "cluster" / "on-premise.yaml"]
RAYJOB, SLURM = ROOT / "docs" / "cluster" / "rayjob.yaml", ROOT / "docs" / "cluster" / "slurm.sh"
VERBS = "start|stop|status|search|get-auth-token"
COMMAND = re.compile(rf"(?:^|[\s/])(ray|embtune) ((?:{VERBS})\b[^;&|>)}}#\n]*)", re.MULTILINE)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Program -> words of its command lines in a file, comments left out."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]
    return [(program, shlex.split(words)) for program, words in COMMAND.findall("\n".join(lines))]


def launcher(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_ray_accepts_the_launcher_files(path: Path) -> None:
    validate_config(prepare_config(launcher(path)))


@pytest.mark.parametrize(("path", "count"), [(LAUNCHERS[0], 4), (LAUNCHERS[1], 4), (RAYJOB, 1), (SLURM, 5)])
def test_every_command_line_is_one_that_ray_or_embtune_takes(path: Path, count: int) -> None:
    from ray.scripts.scripts import cli as ray_cli

    found = commands(path.read_text(encoding="utf-8"))
    assert len(found) == count, found
    for program, words in found:
        # A variable stands for a number or a text; in a place for either, a number is both.
        filled = [re.sub(r"\$\{?\w+\}?", "6379", word) for word in words]
        assert parsed(ray_cli if program == "ray" else cli, filled) == "", words


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_a_worker_without_the_disk_of_the_head_does_not_join(path: Path, tmp_path: Path) -> None:
    config = launcher(path)
    mark, guard = config["head_start_ray_commands"][0], config["worker_start_ray_commands"][0]

    def run(line: str) -> subprocess.CompletedProcess[str]:
        here = line.replace("/mnt/runs", str(tmp_path))
        return subprocess.run(["bash", "-c", here], capture_output=True, text=True, check=False)

    blind = run(guard)
    assert blind.returncode == 1
    assert "is not the disk of the head, so this worker does not join" in blind.stderr
    assert run(mark).returncode == 0
    assert run(guard).returncode == 0


def test_the_nodes_are_set_up_with_the_versions_that_were_tested() -> None:
    for path in LAUNCHERS:
        config = launcher(path)
        assert config["file_mounts"]["~/constraints.txt"] == "constraints.txt"
        assert "-c ~/constraints.txt ~/wheels/embtune-*.whl" in config["setup_commands"][-1]
        assert config["setup_commands"][0] == "chmod 600 ~/.ray/auth_token"
        assert all("RAY_AUTH_MODE=token" in config[f"{node}_start_ray_commands"][-1] for node in ("head", "worker"))


def test_the_job_of_kubernetes_asks_for_a_token_and_every_pod_sees_runs_and_spec() -> None:
    cluster = launcher(RAYJOB)["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    pinned = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert [cluster["rayVersion"]] == pinned
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"runs": "/mnt/runs", "spec": "/spec"}
        assert {volume["name"] for volume in pod["volumes"]} == mounts.keys()


def test_the_script_of_slurm_is_one_that_bash_reads() -> None:
    assert subprocess.run(["bash", "-n", SLURM], check=False).returncode == 0
