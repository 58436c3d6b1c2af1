"""The REST interface of MONAI Label, as far as 3D Slicer's module uses it to segment.

Source: the module's client, MONAILabelLib/client.py of MONAI Label 0.8.5.
"""

from lamina.serve.slicer.datastore import Datastore

__all__ = ["Datastore"]
