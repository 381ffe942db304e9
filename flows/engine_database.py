"""`python -m flows.engine_database`: make the workflow engine's database, which its first run would else wait for.

Part of the installation. Nothing happens where the database is there already, or a server of its own keeps it.
"""

from __future__ import annotations

import flows.prefect_settings  # noqa: F401 - it must come before prefect

# isort: split
import asyncio
import os


def main() -> None:
    """Create the database below Lacuna's home, or bring it up to date."""
    if "PREFECT_API_URL" in os.environ:
        return
    from prefect.server.database import provide_database_interface

    asyncio.run(provide_database_interface().create_db())


if __name__ == "__main__":
    main()
