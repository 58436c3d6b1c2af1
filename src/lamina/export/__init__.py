"""Models for other runtimes. Writing them needs torch; loading them only the runtime's package."""
