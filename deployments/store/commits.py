"""Commits: transactions that are committed only while their caller waits for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from penumbra.deployments.errors import StoreInDoubt
from penumbra.deployments.store.attempt import begin_commit
from penumbra.deployments.store.postgres import limit_transaction


@contextmanager
def committed(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a transaction, and commit it at the end of the block; roll it back if the block raises.

    Raises:
        StoreUnavailable: The caller does not wait for it any more; it was rolled back.
        StoreInDoubt: The connection broke while it was committed.
        SQLAlchemyError: The database failed; it was rolled back.
    """
    with engine.connect() as connection:  # rolls back what is not committed
        limit_transaction(connection)
        yield connection
        begin_commit()
        try:
            connection.commit()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise StoreInDoubt(f"the store's answer to a commit is lost: {error.orig}") from error
