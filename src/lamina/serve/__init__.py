"""The server: scans come in over HTTP, worker processes segment them, results wait for pickup.

``jobs`` is the queue with its processes, ``intake`` takes uploads apart, ``slicer`` speaks the
protocol of MONAI Label. ``view_server`` shows one scan to one browser,
without a queue. What a job does is handed in by :mod:`lamina.workflows.serve`.
"""
