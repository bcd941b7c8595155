"""The database's tables, its versions, and the way from each version to the next.

Theory. ``record`` holds every kind of record as msgpack; ``lookup`` is the one index table, in two orders: by value
(to find records) and by record (to test one). ``indexed`` repeats a record's rows of ``lookup``, so that replacing a
record removes exactly what was written for it, whatever the code thinks of its indexes today. ``event`` holds the
leaves of the tree, ``head`` its frontier and root; both change in the transaction that changes the records. ``slice`` and
``interaction`` find events by their interaction (``interaction.py``).

Invariants. ``user_version`` is the schema's version; a migration and its new version commit together; a database of a
newer version, or of another application, is refused and not touched. Migrations only go forward, and are never edited
once released: a change is a new one.
"""

from typing import Any, Final

APPLICATION_ID: Final = 0x41504948
"""``APIH``, so that ``file`` and we know whose database it is."""

LEAST_SQLITE: Final = (3, 51, 3)
"""Older versions can corrupt a WAL database (the WAL-reset bug of 3.7.0 to 3.51.2)."""

MIGRATIONS: Final = (
    """
    CREATE TABLE record (
      kind TEXT NOT NULL,
      key TEXT NOT NULL,
      version INTEGER NOT NULL,
      purge_at INTEGER,
      indexed BLOB NOT NULL,
      body BLOB NOT NULL,
      PRIMARY KEY (kind, key)
    ) STRICT;
    CREATE INDEX record_purge ON record (purge_at) WHERE purge_at IS NOT NULL;
    CREATE TABLE lookup (
      kind TEXT NOT NULL,
      name TEXT NOT NULL,
      value ANY NOT NULL,
      key TEXT NOT NULL,
      PRIMARY KEY (kind, name, value, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX lookup_record ON lookup (kind, key, name, value);
    CREATE TABLE event (
      position INTEGER PRIMARY KEY,
      interaction TEXT NOT NULL,
      leaf BLOB NOT NULL
    ) STRICT;
    CREATE INDEX event_interaction ON event (interaction, position) WHERE interaction <> '';
    CREATE TABLE head (
      one INTEGER PRIMARY KEY CHECK (one = 1),
      size INTEGER NOT NULL,
      frontier BLOB NOT NULL,
      root BLOB NOT NULL
    ) STRICT;
    INSERT INTO head VALUES (1, 0, x'', x'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
    """,
    """
    CREATE TABLE slice (first INTEGER PRIMARY KEY, beyond INTEGER NOT NULL) STRICT;
    CREATE TABLE interaction (
      slice INTEGER NOT NULL,
      name TEXT NOT NULL,
      position INTEGER NOT NULL,
      PRIMARY KEY (slice, name, position)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO interaction SELECT 0, interaction, position FROM event WHERE interaction <> ''
      ORDER BY interaction, position;
    INSERT INTO slice SELECT 0, max(position) + 1 FROM event HAVING max(position) IS NOT NULL;
    DROP INDEX event_interaction;
    """,
)
"""``MIGRATIONS[n]`` takes a database from version n to n + 1."""

SCHEMA_VERSION: Final = len(MIGRATIONS)


class StoreError(Exception):
    """Say in one line why the tenant's state cannot be opened, and what to do."""


class StoreFailedError(Exception):
    """Say that the disk broke its word (a failed fsync, a damaged database): the process must end.

    Nothing was acknowledged after the failure. Started again, the node goes on from what is durable. Never caught
    but by ``hub.node``, which ends the process with a code other than zero.
    """


def check_sqlite(version: str) -> None:
    """Refuse a SQLite library that can corrupt the database.

    Raises:
        StoreError: It is older than 3.51.3.
    """
    if tuple(int(part) for part in version.split(".")) < LEAST_SQLITE:
        least = ".".join(str(part) for part in LEAST_SQLITE)
        raise StoreError(
            f"SQLite {version} can corrupt a WAL database; install an apsw that bundles {least} or newer"
        )


def check_version(connection: Any, path: str) -> int:
    """Return the version of a database of ours, 0 for an empty one.

    Raises:
        StoreError: It belongs to another application or to a newer Hub.
    """
    version = int(connection.pragma("user_version"))
    application = int(connection.pragma("application_id"))
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if application != APPLICATION_ID and not empty:
        raise StoreError(f"{path}: is not a database of this Hub (application id {application:#x})")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: was written by a newer Hub (schema {version}, this one knows {SCHEMA_VERSION}); "
            "start that version, or restore a backup"
        )
    return version


def migrate(connection: Any, path: str) -> None:
    """Bring a database to the newest version, each step in one transaction.

    Raises:
        StoreError: It belongs to another application or to a newer Hub.
    """
    for step in range(check_version(connection, path), SCHEMA_VERSION):
        with connection:
            connection.pragma("application_id", APPLICATION_ID)
            connection.execute(MIGRATIONS[step])
            connection.pragma("user_version", step + 1)
