"""The ways to explain what a model says of one scan, each as maps of the scan."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from lamina.bundle import Bundle, Ensemble, build_network
from lamina.data.plan import Plan
from lamina.errors import ConfigError, DatasetError, unknown
from lamina.explain.attention import AttentionMaps, sites_of
from lamina.explain.gradcam import GradCAM
from lamina.explain.layers import default_layer, find_layer, layers_of
from lamina.explain.scan import Prepared
from lamina.explain.uncertainty import Uncertainty, by_structure, views_of
from lamina.files import take_room, writing
from lamina.folders.model import Model
from lamina.inference.backend import fast_network
from lamina.report.heat import Heat
from lamina.volume import Volume
from lamina.workflows import Progress

Method = Literal["gradcam", "attention", "uncertainty"]
METHODS: tuple[Method, ...] = get_args(Method)

_HEADS = "vit.heads"
"""Name of the maps of a transformer's heads, which a network reads with the image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a method makes of a scan."""

    heats: Sequence[Heat]
    segmentation: Volume
    layer: str = ""
    structures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What is to be said of all maps."""
    remarks: tuple[str, ...] = ()
    """What is to be said of what has no map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A scan, a model, and a folder on whose disk maps are held while they are made."""

    model: Model
    image: Volume
    device: str
    folder: Path
    progress: Progress

    @property
    def bundle(self) -> Bundle:
        """The model as it lies in its file."""
        return self.model.bundle

    @cached_property
    def prepared(self) -> Prepared:
        """The scan as the network sees it.

        Raises:
            GeometryError: As for ``explain``.
        """
        return Prepared.of(self.image, self.model.predictor)

    def maps(self, count: int, fill: Callable[[NDArray[np.float32]], None]) -> NDArray[np.float32]:
        """Return maps ``(count, *S)`` on the scan's own grid, held on the disk.

        Args:
            count: How many.
            fill: Fills zeros; of a slanted scan, those of an upright grid.

        Raises:
            FileError: The folder cannot be written, or the disk has not enough room.
        """
        found = self._room(count, self.prepared.alignment.source_shape)
        fill(found)
        if self.prepared.straightening is None:
            return found
        own = self._room(count, self.image.spatial_shape)
        self.prepared.on_scan(found, own)
        return own

    def _room(self, count: int, spatial_shape: Sequence[int]) -> NDArray[np.float32]:
        """Make zeros in a file without a name: nothing is left of it, even by a killed process."""
        shape = (count, *spatial_shape)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.folder) as file:
                take_room(file.fileno(), prod(shape) * np.dtype(np.float32).itemsize)
                return np.memmap(file, np.float32, mode="w+", shape=shape)

    def tell(self, what: str) -> Any:
        """Return a listener for windows."""
        return lambda done, total: self.progress(done, total, what)

    def segment(self) -> Volume:
        """Return what the model makes of the scan."""
        return self.model.predictor(self.image, self.tell("Segmenting"))

    def network(self) -> tuple[torch.nn.Module, tuple[str, ...]]:
        """Return the network to look into, as its file defines it; of an ensemble the first.

        Returns:
            The network, and what is to be said of it.
        """
        network = build_network(self.bundle)
        if not isinstance(network, Ensemble):
            return network.to(self.device), ()
        told = f"Maps are of the first of {len(network.members)} members of the ensemble."
        return network.members[0].to(self.device), (told,)


def explained(subject: Subject, method: Method, layer: str | None, labels: Sequence[str]) -> Found:
    """Explain a scan by one of the methods; errors are those of ``explain``."""
    if method == "gradcam":
        return _gradcam(subject, layer, labels)
    return _attention(subject, layer) if method == "attention" else _uncertainty(subject)


def _gradcam(subject: Subject, name: str | None, labels: Sequence[str]) -> Found:
    plan = subject.bundle.plan
    config = subject.bundle.config
    layers = layers_of(config)
    layer = find_layer(layers, name) if name else default_layer(layers, config.num_classes)
    channels = _channels(plan, labels)
    network, notes = subject.network()
    cam = GradCAM(network, layer, [*channels.values()], exclusive=not plan.region_based)
    there = cam.weigh(subject.prepared.windows())
    seen = [each for each, found in zip(channels, there, strict=True) if found]
    lost = [each for each in channels if each not in seen]
    if not seen:
        raise DatasetError(
            f"{subject.image.source}: the model finds no {' or '.join(lost)}; there is nothing to "
            "explain."
        )
    fill = partial(subject.prepared.apply, cam, progress=subject.tell("Grad-CAM"))
    maps = subject.maps(len(channels), fill)
    heats = []
    for name, array in zip(channels, maps, strict=True):
        if name in seen:
            array /= max(float(array.max()), 1e-12)
            heats.append(Heat(name=name, array=array, high=1.0, structures=_members(plan, name)))
    remarks = tuple(f"{name}: the model finds none, so it has no map." for name in lost)
    return Found(
        heats=heats,
        segmentation=subject.segment(),
        layer=layer.name,
        notes=notes,
        remarks=remarks,
    )


def _channels(plan: Plan, labels: Sequence[str]) -> dict[str, int]:
    """Return which channel of the logits says what: structures, or regions."""
    names = [*plan.labels.regions] if plan.region_based else [*plan.labels.foreground]
    first = 0 if plan.region_based else 1
    known = {name: index for index, name in enumerate(names, start=first)}
    for name in labels:
        if name not in known:
            raise unknown("structure", name, known)
    return {name: known[name] for name in labels or known}


def _members(plan: Plan, name: str) -> tuple[str, ...]:
    return plan.labels.regions.get(name, (name,))


def _attention(subject: Subject, name: str | None) -> Found:
    (network, notes), prepared = subject.network(), subject.prepared
    sites = sites_of(network)
    plan, drawn = subject.bundle.plan, len(prepared.array) - len(subject.bundle.plan.channels)
    names = [*([_HEADS] if drawn else []), *(site.name for site in sites)]
    if not names:
        raise ConfigError(
            f"{subject.bundle.network['name']}: has no attention of its own.",
            remedy="Explain it with gradcam.",
        )
    if name and name not in names:
        raise unknown("layer", name, names)
    heats = []
    if drawn and name in (None, _HEADS):
        drawings = prepared.array[len(plan.channels) :]
        maps = subject.maps(drawn, partial(prepared.alignment.restore_maps, drawings))
        heats += [
            Heat(name=f"{_HEADS} {head}", array=array, high=1.0)
            for head, array in enumerate(maps, start=1)
        ]
    looked = [site for site in sites if name in (None, site.name)]
    if looked:
        titles = [f"{site.name} {channel}" for site in looked for channel in site.channels]
        seer = AttentionMaps(network, looked)
        fill = partial(prepared.apply, seer, progress=subject.tell("Attention"))
        maps = subject.maps(len(titles), fill)
        heats += [_to_its_height(title, array) for title, array in zip(titles, maps, strict=True)]
    return Found(heats=heats, segmentation=subject.segment(), layer=name or "", notes=notes)


def _to_its_height(name: str, array: NDArray[np.float32]) -> Heat:
    return Heat(name=name, array=array, high=max(float(array.max()), 1e-6))


def _uncertainty(subject: Subject) -> Found:
    plan, network = subject.bundle.plan, build_network(subject.bundle)
    members = [*network.members] if isinstance(network, Ensemble) else [network]
    networks = [fast_network(member, subject.device) for member in members]
    seer = Uncertainty(views_of(networks, plan, tta=True), plan)
    progress = subject.tell("Looking at all views")
    maps = subject.maps(
        2, partial(subject.prepared.apply, seer, finish=seer.finish, progress=progress)
    )
    named = dict(zip(("entropy", "disagreement"), maps, strict=True))
    agreement = seer.tally.take()
    segmentation = subject.segment()
    indices = plan.labels.encode(segmentation.array[0], segmentation.source)
    told = by_structure(named, indices, plan)
    remarks: tuple[str, ...] = ()
    if seer.tally.alone:
        named.pop("disagreement")
        remarks = ("There is one view only: no ensemble, and nothing to mirror.",)
    return Found(
        heats=[_to_its_height(name, array) for name, array in named.items()],
        segmentation=segmentation,
        structures={
            name: values | ({"agreement": agreement[name]} if name in agreement else {})
            for name, values in told.items()
        },
        agreement=agreement,
        remarks=remarks,
    )
