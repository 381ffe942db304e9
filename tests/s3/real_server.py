"""The S3 server the tests run against, and what is asked of it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "deployments" / "s3" / "server.sh"


@dataclass(frozen=True)
class Server:
    """The running server: its settings as environment variables, and the gateway's switch."""

    settings: dict[str, str]

    @property
    def stranger(self) -> dict[str, str]:
        """Environment of the second user, who may see none of the first one's buckets."""
        prefix = "LACUNA_S3_STRANGER_"
        keys = {f"AWS_{name.removeprefix(prefix)}": value for name, value in self.settings.items() if prefix in name}
        return {**self.settings, **keys}

    @property
    def secrets(self) -> list[str]:
        return [value for name, value in self.settings.items() if name.endswith("KEY") or name.endswith("KEY_ID")]

    def control(self, command: str) -> None:
        subprocess.run([str(SCRIPT), command], check=True, capture_output=True, timeout=120)


@dataclass
class Requests:
    """What the client asked of the server: (operation, key, bytes of the answer)."""

    made: list[tuple[str, str, int]] = field(default_factory=list)

    def count(self, operation: str) -> int:
        return sum(made[0] == operation for made in self.made)

    @property
    def fetched(self) -> int:
        """Bytes of objects that came over the wire."""
        return sum(size for operation, _, size in self.made if operation == "get_object")
