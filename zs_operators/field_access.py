"""What a run does in the database: patiently, and only while its fields are there and its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from zs_operators import dataset_state, fields, provenance
from zs_operators.database_retries import patiently
from zs_operators.errors import BusyFieldError, DatabaseError
from zs_operators.guarded_writes import LeftAlone, write_values
from zs_operators.run_lease import RunLease, SchemaTurn

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from zs_operators.targets import Target

Result = TypeVar("Result")


class FieldAccess:
    """The fields of one run, this run's alone until the end of the ``with`` block.

    Args:
        samples: dataset or view
        task: name of the task
        target: where results go
        overwrite: whether labels may be replaced
        kept: what is safe in the database so far, a sentence for errors
        lease (None): the right to write, of a run that works in several processes; None takes it

    Raises:
        BusyFieldError: if another run writes to one of the fields
        FieldError: if somebody made a field unusable since the arguments were checked
        DatabaseError: like all methods, if the database was away for too long
    """

    def __init__(
        self,
        samples: SampleCollection,
        task: str,
        target: Target,
        *,
        overwrite: bool,
        kept: Callable[[], str],
        lease: RunLease | None = None,
    ) -> None:
        self._samples = samples
        self._task = task
        self._target = target
        self._kept = kept
        self._is_lost = False
        run_key = provenance.run_key(task, target.run_name)
        self._lease = lease or RunLease(samples, target.field_names, run_key)
        self._turn = SchemaTurn(samples)
        self.patiently(self._lease.take)
        try:
            self.patiently(lambda: dataset_state.refresh(samples))
            self.patiently(lambda: target.check(task, overwrite=overwrite))
        except BaseException:
            self.close()
            raise
        self._standing = dataset_state.Standing(samples, target.field_names)

    @property
    def owner(self) -> str:
        """Of the lease, for other processes of the same run."""
        return self._lease.owner

    def __enter__(self) -> FieldAccess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write."""
        from pymongo.errors import PyMongoError

        # What cannot be released falls free by itself
        with contextlib.suppress(PyMongoError):
            self._lease.release()

    def patiently(self, step: Callable[[], Result]) -> Result:
        """:func:`.database_retries.patiently`, with what a run has to say."""
        try:
            return patiently(step, kept=self._kept)
        except DatabaseError:
            self._is_lost = True
            raise

    def declare(self, description: str) -> None:
        """Adds the fields to the schema."""
        self._with_schema(lambda: self._target.declare(description))

    def write(self, prepare: Callable[[], Any], errors: Mapping[str, str | None]) -> LeftAlone:
        """Writes results, and before them why others failed: the mark that says done comes last.

        Args:
            prepare: gives what :meth:`.targets.Target.write` takes
            errors: reasons by sample id, None to forget an old one

        Returns:
            samples that are gone, or that somebody else changed meanwhile

        Raises:
            DeletedError: if the dataset or a field is gone
            BusyFieldError: if this process was suspended and another took the field over
        """
        self.patiently(self._check)
        if any(errors.values()):
            self._with_schema(lambda: fields.declare_errors(self._samples, self._target.name))
        prepared = self.patiently(prepare)
        return self._surely(lambda: self._write(prepared, errors))

    def _write(self, prepared: Any, errors: Mapping[str, str | None]) -> LeftAlone:
        self._write_errors(errors)
        left = self._target.write(prepared)
        self._write_errors({one: None for one in left.edited if errors.get(one)})
        return left

    def save(self, record: dict[str, Any]) -> None:
        """Saves the run's record, unless the dataset or the right to write is gone."""
        if self._is_lost or self._standing.is_deleted:
            return
        name = self._target.run_name
        self._with_schema(lambda: provenance.save(self._samples, self._task, name, record))

    def _check(self) -> None:
        self._renew()
        self._standing.check()

    def _renew(self, *, journaled: bool = False) -> None:
        try:
            self._lease.renew(journaled=journaled)
        except BusyFieldError:
            self._is_lost = True
            raise

    def _write_errors(self, errors: Mapping[str, str | None]) -> None:
        name = fields.error_field(self._target.name)
        if errors:
            write_values(self._samples, name, errors)

    def _with_schema(self, step: Callable[[], Any]) -> None:
        """Does what changes the dataset's own document."""

        def up_to_date() -> None:
            with self._turn:
                # also of what an earlier, failed try has left in memory
                dataset_state.refresh(self._samples)
                step()

        self._surely(up_to_date)

    def _surely(self, step: Callable[[], Result]) -> Result:
        """Does a step, once more if the server is gone before it is in the journal.

        A server that is killed forgets what it has acknowledged in the last tenth of a second.
        """

        def durably() -> Result:
            result = step()
            self._renew(journaled=True)
            return result

        return self.patiently(durably)
