"""Named things of one family, found by looking into the family's own folder."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from lamina.errors import unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to the members of one family (networks, losses, layouts, metrics, ...).

    The modules of ``package`` are imported at the first look-up, not before, so that importing
    Lamina stays cheap and adding a member means creating one file.

    Args:
        family: What a member is called in messages, in the singular ("network").
        package: Dotted name of the folder whose modules register the members.
    """

    def __init__(self, family: str, package: str) -> None:
        self.family = family
        self.package = package
        self._members: dict[str, T] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its object under ``name``.

        Raises:
            ValueError: ``name`` is taken; two files of one family must not claim the same name.
        """

        def add(member: T) -> T:
            if name in self._members:
                raise ValueError(f"{self.family} {name!r} is registered twice in {self.package}")
            self._members[name] = member
            return member

        return add

    def get(self, name: str) -> T:
        """Return the member called ``name``.

        Raises:
            UnknownNameError: Nothing of that name; the message offers near matches.
        """
        self._scan()
        if name in self._members:
            return self._members[name]
        raise unknown(self.family, name, self)

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._members))

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._members

    def __len__(self) -> int:
        self._scan()
        return len(self._members)

    def _scan(self) -> None:
        if self._scanned:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__, f"{self.package}."):
            importlib.import_module(module.name)
        self._scanned = True  # only now: a module that fails to import must fail every look-up
