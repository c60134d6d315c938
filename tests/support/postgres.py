"""PostgreSQL servers and fresh databases in them."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from support.requirements import require
from support.waiting import wait_until
from workledger.postgres._install import server_account

__all__ = ["debian_postgres", "fresh_database"]


@contextmanager
def debian_postgres(directory: Path, *, major: int) -> Iterator[str]:
    """Run a cluster of Debian's PostgreSQL in `directory`; gives the URL of its database `postgres`."""
    programs = Path(f"/usr/lib/postgresql/{major}/bin")
    if not (programs / "postgres").exists():
        require(f"postgresql-{major}", f"{programs} does not exist; tools/install-test-servers installs it")
    directory.mkdir(parents=True, mode=0o711)
    account = server_account(directory / "cluster")
    for name in ("cluster", "socket"):
        (directory / name).mkdir(mode=0o700)
        os.chown(directory / name, account.uid, account.gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, "-D", directory / "cluster", *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            **account.as_subprocess_options(),
        )

    run("initdb", "-U", "postgres", "--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync")
    options = f"-c listen_addresses= -c max_connections=200 -c timezone=UTC -k {directory / 'socket'}"
    run("pg_ctl", "start", "-w", "-l", f"{directory / 'cluster' / 'server.log'}", "-o", options)
    try:
        yield f"postgresql://postgres@/postgres?host={directory / 'socket'}&port=5432"
    finally:
        run("pg_ctl", "stop", "-m", "immediate")


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Make an empty database in the server at `server_url`, and drop it afterwards whoever is connected."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
        finally:
            wait_until(lambda: _is_dropped(admin, name))


def _is_dropped(admin: psycopg.Connection, name: str) -> bool:
    """Drop a database; False when somebody's session did not end in the five seconds that PostgreSQL gives it."""
    try:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    except psycopg.errors.ObjectInUse:
        return False
    return True
