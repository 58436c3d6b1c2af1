"""Models for other runtimes. Writing them needs torch; loading them only the runtime's package."""

import sys

# OpenVINO and NNCF tell their makers of every import, unless the package that does it is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
