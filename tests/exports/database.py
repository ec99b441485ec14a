"""FiftyOne with a database: its own mongod where one is there, else mongomock in its place; everything else is real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def fiftyone() -> Any:
    """Import FiftyOne, which connects to its database at once."""
    import importlib.util

    os.environ["FIFTYONE_DO_NOT_TRACK"] = "1"
    found = importlib.util.find_spec("fiftyone")
    assert found is not None
    assert found.origin is not None
    if (
        "FIFTYONE_DATABASE_URI" not in os.environ
        and not (Path(found.origin).parent / "db" / "bin" / "mongod").is_file()
    ):
        _stand_in()
    import fiftyone as fo

    return fo


def _stand_in() -> None:
    """Let pymongo and mongoengine connect to mongomock, in this process only."""
    import mongoengine
    import mongomock
    import pymongo
    from mongomock.store import ServerStore

    os.environ |= {"FIFTYONE_DATABASE_URI": "mongodb://localhost", "FIFTYONE_DATABASE_VALIDATION": "0"}
    os.environ["FIFTYONE_DATABASE_ADMIN"] = "0"
    store, connect = ServerStore(), mongoengine.connect

    class Client(mongomock.MongoClient):  # type: ignore[misc]
        _closed = False

        def __init__(self, *names: Any, **options: Any) -> None:
            super().__init__(*names, **{k: v for k, v in options.items() if k != "appname"}, _store=store)

        def server_info(self) -> dict[str, Any]:
            return {"version": "7.0.0", "versionArray": [7, 0, 0, 0]}

    pymongo.MongoClient = Client
    mongoengine.connect = lambda name, **options: connect(
        name, mongo_client_class=Client, **{k: v for k, v in options.items() if k != "appname"}
    )
