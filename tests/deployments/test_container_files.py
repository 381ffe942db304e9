"""The container and Kubernetes files pass their linters, offline, and agree with the rest of the repository.

The linters come with `pip install -e .[dev]`; where one is absent these tests fail. Nothing here builds an image.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]
from prefect.events.schemas.automations import AutomationCore
from typer.main import get_command

from flows.cli import app

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "deployments"
DOCKERFILE = FOLDER / "Dockerfile"
KUBERNETES = sorted((FOLDER / "kubernetes").glob("*.yaml"))
# The first in which podFailurePolicy is stable, and the newest that the linter knows.
KUBERNETES_VERSIONS = ("1.31", "1.37")
SCRIPTS = [FOLDER / "worker.sh", FOLDER / "s3" / "container.sh", FOLDER / "s3" / "server.sh"]


def lint(program: str, *arguments: str | Path) -> str:
    """Run a linter of this environment and return what it complains of; without it, FileNotFoundError."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr or f"exit code {ended.returncode}"


def pins() -> dict[str, str]:
    lines = (line.split("==") for line in (CHECKOUT / "constraints.txt").read_text().split() if "==" in line)
    return {name.lower(): version for name, version in lines}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return found


def pod(file: str) -> dict[str, Any]:
    spec = yaml.safe_load((FOLDER / "kubernetes" / file).read_text())["spec"]
    job = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    found: dict[str, Any] = job["template"]["spec"]
    return found


def with_card(text: str) -> str:
    """Switch on the lines for NVIDIA cards, as an operator would."""
    return text.replace("# cuda: ", "")


class TestLinters:
    def test_dockerfile(self) -> None:
        assert lint("hadolint", DOCKERFILE) == ""

    def test_hadolint_would_complain(self, tmp_path: Path) -> None:
        bad = tmp_path / "Dockerfile"
        bad.write_text("FROM debian:latest\nRUN cd /tmp && apt-get install sudo\n")
        assert "DL3007" in lint("hadolint", bad)

    def test_yaml(self) -> None:
        assert lint("yamllint", "--strict", "-c", FOLDER / ".yamllint.yaml", FOLDER) == ""

    def test_compose(self) -> None:
        files = sorted(FOLDER.glob("compose*.yaml"))
        assert len(files) == 2
        assert lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files) == ""

    def test_compose_schema_would_complain(self, tmp_path: Path) -> None:
        bad = tmp_path / "compose.yaml"
        bad.write_text((FOLDER / "compose.yaml").read_text().replace("healthcheck:", "health_check:", 1))
        assert "health_check" in lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", bad)

    @pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
    @pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: str(path.name))
    def test_kubernetes(self, path: Path, version: str) -> None:
        for text in (path.read_text(), with_card(path.read_text())):
            for document in yaml.safe_load_all(text):
                kubernetes_validate.validate(document, version, strict=True)

    def test_kubernetes_schema_would_complain(self) -> None:
        document = yaml.safe_load((FOLDER / "kubernetes" / "nightly.yaml").read_text())
        document["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]["action"] = "Forgive"
        document["spec"]["timezone"] = "Etc/UTC"
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, KUBERNETES_VERSIONS[-1], strict=True)

    @pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.name))
    def test_scripts_are_shell(self, path: Path) -> None:
        assert os.access(path, os.X_OK)
        assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0

    def test_automation_is_one_that_prefect_takes(self) -> None:
        automation = AutomationCore.model_validate(yaml.safe_load((FOLDER / "automations.yaml").read_text()))
        assert automation.enabled
        # Known by this name, so that it is registered once.
        assert f"automation {automation.name}" in (FOLDER / "worker.sh").read_text()


class TestVersions:
    def test_python(self) -> None:
        python = re.search(r"^ARG PYTHON=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
        assert python
        assert python[1] == project["tool"]["mypy"]["python_version"]
        assert project["project"]["requires-python"].startswith(f">={python[1]},")

    def test_prefect(self) -> None:
        assert compose()["services"]["server"]["image"] == f"lacuna-server:prefect-{pins()['prefect']}"
        assert f"Prefect {pins()['prefect']}, from constraints.txt" in (FOLDER / "compose.yaml").read_text()

    def test_packages_come_from_the_constraints(self) -> None:
        """Every package is installed under constraints.txt, torch by its pin; those that matter have one."""
        text = DOCKERFILE.read_text().replace("\\\n", " ")
        installs = re.findall(r"pip install ([^&\n]*)", text)
        assert len(installs) == 5
        for arguments in installs:
            constrained = "-c constraints.txt" in arguments
            by_pin = "sed -n 's/^torch==//p' constraints.txt" in arguments
            assert constrained or by_pin or arguments.strip() == "--no-deps -e .", arguments
        assert {"torch", "prefect", "fastapi", "sqlalchemy", "asyncpg"} <= set(pins())

    def test_images_are_pinned(self) -> None:
        images = [service["image"] for service in compose()["services"].values()]
        images += re.findall(r"^FROM (\S+:\S+)", DOCKERFILE.read_text(), re.MULTILINE)
        for image in images:
            tag = image.partition(":")[2]
            assert tag, image
            assert tag != "latest", image


class TestAgreement:
    def test_what_is_copied_exists_and_is_in_the_build_context(self) -> None:
        allowed = [line[1:] for line in (CHECKOUT / ".dockerignore").read_text().split("\n") if line.startswith("!")]
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), re.MULTILINE):
            for source in line.split()[:-1]:
                assert (CHECKOUT / source).exists(), source
                assert any(fnmatch(source, name) or source.startswith(f"{name}/") for name in allowed), source

    def test_every_package_of_the_program_is_in_the_image(self) -> None:
        include = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
        for name in include["include"]:
            assert f"\nCOPY {name.rstrip('*')} {name.rstrip('*')}\n" in DOCKERFILE.read_text()

    def test_stages_that_are_named_exist(self) -> None:
        stages = set(re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE.read_text(), re.MULTILINE))
        builds = [service["build"] for service in compose()["services"].values() if "build" in service]
        assert {build["target"] for build in builds} == {"server", "s3", "lacuna"} <= stages
        assert {"packages-cpu", "packages-cuda"} <= stages
        for build in builds:
            assert (FOLDER / build["context"] / build["dockerfile"]).samefile(DOCKERFILE)
        assert set(re.findall(r"--from=(\S+)", DOCKERFILE.read_text())) <= stages

    def test_commands_are_those_of_the_program(self) -> None:
        known = set(get_command(app).commands)  # type: ignore[attr-defined]
        assert pod("restore-job.yaml")["containers"][0]["args"][0] in known
        (line,) = pod("nightly.yaml")["containers"][0]["args"]
        assert set(re.findall(r"\blacuna ([a-z]+) ", line)) == {"nightly"} <= known
        assert 'ENTRYPOINT ["lacuna"]' in DOCKERFILE.read_text()

    def test_deployments_that_are_named_exist(self) -> None:
        deployments = yaml.safe_load((FOLDER / "prefect.yaml").read_text())["deployments"]
        scheduled = {item["name"] for item in deployments if item.get("schedules")}
        listed = re.search(r"^SCHEDULED=\((.*)\)$", (FOLDER / "worker.sh").read_text(), re.MULTILINE)
        assert listed
        assert {name.partition("/")[2] for name in listed[1].split()} == scheduled
        assert {item["work_pool"]["name"] for item in deployments} == {"lacuna"}
        assert "POOL=lacuna\n" in (FOLDER / "worker.sh").read_text()

    def test_variables_of_the_deployments_are_set_for_the_worker(self) -> None:
        asked = set(re.findall(r"\{\{ \$(\w+) \}\}", (FOLDER / "prefect.yaml").read_text()))
        given = set(compose()["services"]["worker"]["environment"]) | {"LACUNA_CHECKOUT"}
        assert asked <= given
        assert "LACUNA_CHECKOUT=/opt/lacuna" in DOCKERFILE.read_text()

    def test_variables_of_compose_are_in_its_example(self) -> None:
        used = set(re.findall(r"\$\{(\w+)[:?-]", (FOLDER / "compose.yaml").read_text())) - {"REVISION"}
        named = set(re.findall(r"^(\w+)=", (FOLDER / "compose.example.env").read_text(), re.MULTILINE))
        assert named == used | {"COMPOSE_PROFILES", "COMPOSE_FILE"}

    def test_jobs_keep_their_cache_and_get_their_keys_by_reference(self) -> None:
        claim = yaml.safe_load((FOLDER / "kubernetes" / "home.yaml").read_text())["metadata"]["name"]
        for file in ("nightly.yaml", "restore-job.yaml"):
            (container,) = pod(file)["containers"]
            home = {item["name"]: item.get("value") for item in container["env"]}["LACUNA_HOME"]
            assert {"name": "home", "mountPath": home} in container["volumeMounts"]
            assert {"name": "home", "persistentVolumeClaim": {"claimName": claim}} in pod(file)["volumes"]
            assert container["envFrom"] == [{"secretRef": {"name": "lacuna-s3"}}]
            assert pod(file)["restartPolicy"] == "Never"  # podFailurePolicy needs it
            assert f"gid {pod(file)['securityContext']['runAsUser']}" in DOCKERFILE.read_text()
            assert "nvidia.com/gpu: 1" in with_card((FOLDER / "kubernetes" / file).read_text())


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (2, 2), (3, 0), (137, 137)])
def test_the_end_of_the_time_is_a_good_night(code: int, expected: int, tmp_path: Path) -> None:
    """The shell line of the CronJob hands on every exit code but 3, after a program that ends so."""
    program = tmp_path / "lacuna"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    container = pod("nightly.yaml")["containers"][0]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert (
        subprocess.run([*container["command"], *container["args"]], env=environment, check=False).returncode == expected
    )


class TestSecrets:
    FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.name not in (".env", "s3.env"))

    @pytest.mark.parametrize("path", [*FILES, CHECKOUT / ".dockerignore"], ids=lambda path: str(path.name))
    def test_no_file_holds_one(self, path: Path) -> None:
        """Where a secret would stand there is nothing, or a reference to where it is kept."""
        name = r"(?:PASSWORD|SECRET\w*|TOKEN|ACCESS_KEY_ID|API_KEY|AUTH_STRING)"
        for found in re.finditer(rf"(?<![{{\w])\w*{name}[\"']?\s*[:=][ \t]*(?P<value>[^\n]*)", path.read_text()):
            value = found["value"].strip("\"' ")
            assert not value or value.startswith(("$", "{{ $")), found[0]
        assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|://[^/\s:]+:[^@\s/$]+@", path.read_text())

    def test_none_reaches_an_image(self) -> None:
        assert not re.search(r"^(ARG|ENV).*(PASSWORD|SECRET|TOKEN|KEY)", DOCKERFILE.read_text(), re.MULTILINE)
        ignored = (CHECKOUT / ".dockerignore").read_text().split("\n")
        assert "*" in ignored
        assert {"deployments/.env", "deployments/*.env"} <= set(ignored)

    def test_none_is_committed_by_accident(self) -> None:
        assert {".env", "s3.env"} <= set((FOLDER / ".gitignore").read_text().split())

    def test_nobody_is_root_at_the_end(self) -> None:
        images = [part for part in DOCKERFILE.read_text().split("\nFROM ") if "ENTRYPOINT" in part]
        users = [re.findall(r"^USER (\d+):\d+$", image, re.MULTILINE) for image in images]
        assert len(users) == 3
        assert all(len(found) == 1 and found[0] != "0" for found in users), users
