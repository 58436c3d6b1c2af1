"""Memory that a network gave back is kept for its next operator, where the C library allows it."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of mallopt, in malloc.h
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1}
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 128 << 10, _TRIM_THRESHOLD: 128 << 10}


def keep_freed_memory(*, keep: bool = True) -> bool:
    """Ask glibc to keep up to 2 GB of freed memory for this process, or no longer to.

    By default every large tensor is fetched from the system and returned to it. Each of its pages
    is then zeroed and mapped at its first use, which takes longer than most operators.

    Returns:
        Whether the C library does as told; others than glibc are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError):
        return False
    settings = _KEPT if keep else _USUAL
    done = [mallopt(name, value) for name, value in settings.items()]
    if not keep:
        trim(0)
    return all(done)
