"""Models for other runtimes. Writing them needs torch; loading them only the runtime's package."""

import os
import sys

# These runtimes tell their makers of every import, unless they are told not to, or the package that
# does it is missing.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
