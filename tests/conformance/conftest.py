"""Recorded runs of authors' sub-modules, and what it means to agree with one.

A test asks for ``recorded``, loads a record by its name, and holds a module against it::

    def test_the_block_computes_what_the_authors_code_does(recorded):
        record = recorded("glims_dacb")
        record.check(Block(12), rename=REFERENCES.get("glims").rename)

``check`` loads the recorded weights, all of them and no others, then compares the outputs, the
gradients of the inputs, the norm of every weight's gradient and, where recorded, one step in
training mode with the running statistics after it.

``record.meta`` holds the configuration, ``record.weights`` the tensors by their published names,
``record.inputs`` and ``record.outputs`` the rest.
"""

import importlib.util
import json
import re

import numpy as np
import pytest
import torch

TOLERANCE = 2e-5
NO_NAME = r"(?!)"


class Record:
    """One recorded sub-module; ``recipe`` makes the cotangents that its gradients are of."""

    def __init__(self, path, recipe):
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        self.name = path.stem
        self.recipe = recipe
        self.meta = json.loads(str(arrays["meta_json"]))
        self.inputs = [torch.from_numpy(arrays[key]) for key in sorted(arrays) if key[:2] == "in"]
        self.outputs = named(arrays, "out")
        self.weights = named(arrays, "sd")
        self.gradients = named(arrays, "grad")
        self.trained_outputs = named(arrays, "train_out")
        self.statistics = named(arrays, "train_after")
        norms = zip(arrays["gradnorm_names"], arrays["gradnorm_values"], strict=True)
        self.gradient_norms = {str(name): float(norm) for name, norm in norms}

    def load(self, module, rename, surplus=NO_NAME):
        """Load the weights into ``module``, under ``rename``d names, without ``surplus`` ones."""
        needed = {key: x for key, x in self.weights.items() if not re.search(surplus, key)}
        module.load_state_dict({rename(key): x for key, x in needed.items()})
        return module.eval()

    def check(self, module, *, rename, surplus=NO_NAME, call=None, tolerance=TOLERANCE):
        """Hold ``module`` against the record.

        ``rename`` turns a published name into ours; names that match the regular expression
        ``surplus`` are passed over. ``call(*inputs)`` runs the module where its arguments or the
        order of its outputs differ from the record's.
        """
        call = call or module
        self.load(module, rename, surplus)
        inputs = [x.clone().requires_grad_() for x in self.inputs]
        outputs = self._by_name(call(*inputs))
        for name, expected in self.outputs.items():
            torch.testing.assert_close(outputs[name], expected, atol=tolerance, rtol=0)
        objective = sum((x * self.cotangent(name)).sum() for name, x in outputs.items())
        objective.backward()
        gradients = {f"in{place}": x.grad for place, x in enumerate(inputs)}
        self._check_all(gradients, self.gradients, tolerance)
        self._check_norms(module, rename, tolerance)
        if self.trained_outputs:
            self._check_training(module, rename, surplus, call, tolerance)

    def cotangent(self, output):
        shape = self.outputs[output].shape
        return torch.from_numpy(self.recipe.tensor(f"{self.name}/cot_{output}", shape))

    def _by_name(self, outputs):
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return dict(zip(self.meta["outputs"], outputs, strict=True))

    def _check_all(self, found, expected, tolerance):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=tolerance, rtol=tolerance)

    def _check_norms(self, module, rename, tolerance):
        own = dict(module.named_parameters())
        for name, expected in self.gradient_norms.items():
            gradient = own[rename(name)].grad
            found = 0.0 if gradient is None else float(gradient.norm())
            # -1 stands for a weight that is never used. What normalisation cancels is not exactly
            # zero in float32, but a sum of as many rounding errors as there are voxels.
            close = pytest.approx(max(expected, 0.0), rel=tolerance, abs=10 * tolerance)
            assert found == close, f"gradient of {name}"

    def _check_training(self, module, rename, surplus, call, tolerance):
        self.load(module, rename, surplus).train()
        with torch.no_grad():
            outputs = self._by_name(call(*self.inputs))
        self._check_all(outputs, self.trained_outputs, tolerance)
        own = module.state_dict()
        statistics = {name: own[rename(name)] for name in self.statistics}
        self._check_all(statistics, self.statistics, tolerance)


@pytest.fixture(scope="session")
def recorded(shared):
    """Load a record by its name, such as ``"glims_dacb"``."""
    folder = shared / "specs" / "fixtures"
    spec = importlib.util.spec_from_file_location("recipe", folder / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return lambda name: Record(folder / f"{name}.npz", recipe)


def named(arrays, group):
    """The arrays called ``group/NAME`` as tensors by ``NAME``; floating point ones in float32."""
    members = {
        key.removeprefix(f"{group}/"): x for key, x in arrays.items() if key.startswith(f"{group}/")
    }
    tensors = {name: torch.from_numpy(np.asarray(x)) for name, x in members.items()}
    return {name: x.float() if x.is_floating_point() else x.long() for name, x in tensors.items()}
