"""`python -m flows.engine_database`: make the workflow engine's database, which its first run would else wait for.

Part of the installation. A server of its own, named by PREFECT_API_URL, keeps its own database, and nothing happens.
"""

from __future__ import annotations

import asyncio
import os
import sys


def main() -> None:
    """Create the database below Lacuna's home, or bring it up to date; say so where that is not possible yet."""
    if "PREFECT_API_URL" in os.environ:
        return
    try:
        import flows.prefect_settings  # noqa: F401, I001 - it must come before prefect
        from prefect.server.database import provide_database_interface

        asyncio.run(provide_database_interface().create_db())
    except OSError as error:  # an installation may be done by somebody who has no home
        print(f"The engine's database cannot be made now ({error}); the first run will make it.", file=sys.stderr)


if __name__ == "__main__":
    main()
