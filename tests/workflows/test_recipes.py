"""Recipes say where they come from, fit the program, and train."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import lamina
import lamina.cli.recipes  # files the verb
from lamina.config import resolve
from lamina.data.augment import AUGMENTATIONS
from lamina.data.cache import open_cases
from lamina.data.datasets import load_description
from lamina.data.patches import PatchDataset
from lamina.data.sampling import PatchSampler
from lamina.errors import ConfigError
from lamina.evaluation.metrics import METRICS
from lamina.files import write_json
from lamina.labels import LabelSet
from lamina.losses import LOSSES, build_loss
from lamina.losses.deep_supervision import DeepSupervision
from lamina.models import NETWORKS, configure
from lamina.training.config import TrainConfig
from lamina.training.fit import fit
from lamina.training.regions import RegionTargets
from lamina.training.schedule import learning_rate
from lamina.workflows.recipes import get_recipe, list_recipes

PAPERS = [recipe.name for recipe in list_recipes() if recipe.origin.paper]
VARIANTS = [
    (name, strict) for name in PAPERS for strict in {False, bool(get_recipe(name).strict_paper)}
]
EXPECTED = {
    *("glims-brats", "glims-btcv", "lightmedseg-brats", "lightmedseg-acdc", "lgmsnet-busi"),
    *("lgmsnet-tnscui", "lgmsnet-isic", "lgmsnet-kvasir", "lgmsnet-btcv", "lgmsnet-kits"),
    *("dainet-synapse", "dainet-acdc", "mpunet-lits"),
}
REGION_LOSSES = {"region_dice_ce"}
TINY = {
    "glims": {"feature_size": 4, "depths": [1, 1, 1], "heads": [2, 2, 2], "roi_size": [32, 32, 32]},
    "lightmedseg": {"channels": [4, 4, 4, 4, 8], "num_anchors": 2, "router_channels": 4},
    "lgmsnet_2d": {"channels": [4, 4, 8, 8, 8], "splits": [[4, 4]] * 4},
    "lgmsnet_3d": {"channels": [4, 4, 8, 8, 8], "splits": [[4, 4]] * 4},
    "dainet": {"width": 2},
    "mpunet": {"width": 2},
    "mpunet_released": {"width": 2},
}


def settings_of(name, strict=False):
    return resolve(TrainConfig, lamina.recipe(name, strict_paper=strict))


def labels_of(origin):
    description = load_description(origin.dataset)
    united = description.protocols[origin.paper].labels
    return (
        LabelSet(values={n: i for i, n in enumerate(united, 1)})
        if united
        else description.label_set
    )


def test_there_is_a_recipe_for_each_paper_and_dataset():
    assert set(PAPERS) == EXPECTED
    assert lamina.recipe("auto") == {}
    ours = {recipe.name: recipe.origin for recipe in list_recipes() if not recipe.origin.paper}
    assert set(ours) == {"auto", "demo", "demo_2d"}
    assert all(origin.title for origin in ours.values())


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_says_where_it_comes_from_and_what_it_promises(name):
    recipe = get_recipe(name)
    origin = recipe.origin
    description = load_description(origin.dataset)
    assert origin.paper in description.protocols
    assert not description.protocols[origin.paper].trained_on
    assert origin.source
    assert origin.preparation
    assert origin.departures
    assert bool(origin.published) != bool(origin.unpublished)
    assert {*origin.metrics, *origin.published} <= set(METRICS)
    for metric, scores in origin.published.items():
        parts = [score for what, score in scores.items() if what != "mean"]
        assert all(0 < score < 100 for score in scores.values())
        known = {*description.labels, *description.regions, "mean", "adrenal glands"}
        assert set(scores) <= known
        if parts and name != "lgmsnet-btcv":  # whose mean has two structures more
            assert scores["mean"] == pytest.approx(np.mean(parts), abs=0.05), metric


@pytest.mark.parametrize(("name", "strict"), VARIANTS)
def test_a_recipe_names_what_the_program_has(name, strict):
    config, description = (
        settings_of(name, strict),
        load_description(get_recipe(name).origin.dataset),
    )
    assert config.model in NETWORKS
    assert config.loss in LOSSES
    assert replace(config.augmentation, rescale=False) in AUGMENTATIONS.values()
    build_loss(config.loss, **config.loss_options)
    network = configure(config.model, in_channels=1, num_classes=2, **config.model_options)
    assert len(config.patch_size) == description.spatial_dims
    assert sum(side > 1 for side in config.patch_size) == network.spatial_dims
    assert config.roi_size == config.patch_size
    seen = [side for side in config.patch_size if side > 1]
    assert all(side % network.size_divisor == 0 for side in seen)
    axes = config.augmentation.mirror_axes or ()
    assert all(axis < network.spatial_dims for axis in axes)


def test_settings_are_those_of_the_papers():
    """Held against the papers and the authors' code by hand, each line."""
    rates = {
        # optimiser, highest rate, decay, rate at a half and at the end of the run
        "glims-brats": ("adamw", 1e-3, 1e-5, 5e-4, 0),
        "glims-btcv": ("adamw", 1e-3, 1e-5, 5e-4, 0),
        "lightmedseg-brats": ("adamw", 1e-3, 1e-5, None, 1e-6),
        "lightmedseg-acdc": ("adamw", 1e-3, 1e-5, None, 1e-6),
        "lgmsnet-busi": ("sgd", 0.02, 1e-4, 0.02 * 0.5**0.9, 0),
        "lgmsnet-tnscui": ("sgd", 0.02, 1e-4, 0.02 * 0.5**0.9, 0),
        "lgmsnet-isic": ("sgd", 0.02, 1e-4, 0.02 * 0.5**0.9, 0),
        "lgmsnet-kvasir": ("sgd", 0.01, 1e-4, 0.01 * 0.5**0.9, 0),
        "lgmsnet-btcv": ("adamw", 1e-3, 1e-5, None, 0),
        "lgmsnet-kits": ("adamw", 1e-3, 1e-5, None, 0),
        "dainet-synapse": ("adam", 1e-4, 1e-4, 1e-4 * 0.5**0.9, 0),
        "dainet-acdc": ("adam", 1e-4, 1e-4, 1e-4 * 0.5**0.9, 0),
        "mpunet-lits": ("adam", 1e-4, 0, 1e-4 / 8, 1e-4 / 32),
    }
    assert set(rates) == EXPECTED
    for name, (kind, highest, decay, half, end) in rates.items():
        how = settings_of(name).optimiser
        assert (how.kind, how.lr, how.weight_decay) == (kind, highest, decay), name
        assert half is None or learning_rate(how, 0.5) == pytest.approx(half), name
        assert learning_rate(how, 1.0) == pytest.approx(end, abs=1e-12), name
        assert (how.max_grad_norm, how.ema_decay) == (None, 0), name
    passes = {
        **dict.fromkeys(("glims-brats", "glims-btcv"), (1000, 2)),
        **dict.fromkeys(("lightmedseg-brats", "lightmedseg-acdc"), (300, 8)),
        **dict.fromkeys(("lgmsnet-busi", "lgmsnet-tnscui", "lgmsnet-isic"), (500, 16)),
        "lgmsnet-kvasir": (300, 8),
        "lgmsnet-btcv": (5000, 1),
        "mpunet-lits": (600, 1),
    }
    for name, expected in passes.items():
        config = settings_of(name)
        assert (config.epochs * config.passes_per_epoch, config.batch_size) == expected, name
    assert settings_of("dainet-synapse").passes_per_epoch == round(2211 / 18)


def test_following_a_paper_strictly_restores_its_slips():
    def differ(name):
        mended, strict = settings_of(name), settings_of(name, strict=True)
        return {field for field in vars(mended) if getattr(mended, field) != getattr(strict, field)}

    assert differ("glims-brats") == {"model_options", "loss_options", "augmentation"}
    assert differ("glims-btcv") == {"model_options"}
    assert differ("mpunet-lits") == {"model", "loss_options"}
    assert differ("lgmsnet-btcv") == {"model_options", "loss_options", "precision"}
    assert differ("lgmsnet-kvasir") == {"optimiser", "epochs"}
    assert differ("dainet-acdc") == {"patience"}
    assert differ("lgmsnet-busi") == differ("lightmedseg-brats") == set()
    glims = settings_of("glims-brats", strict=True)
    assert glims.model_options == {"released": True}
    assert glims.augmentation == replace(AUGMENTATIONS["glims"], rescale=True)
    assert glims.loss_options == {
        "squared": True,
        "batch": False,
        "ce": "softmax",
        "smooth": [1e-6, 0],
    }
    assert settings_of("mpunet-lits", strict=True).loss_options == {"ce_input": "sigmoid_of_prob"}
    with pytest.raises(ConfigError, match="strict_paper: recipe 'auto' has no such section"):
        lamina.recipe("auto", strict_paper=True)


def test_a_recipe_without_slips_that_settings_restore_says_so(caplog):
    lamina.recipe("glims-brats", strict_paper=True)
    assert not caplog.text
    lamina.recipe("lgmsnet-busi", strict_paper=True)
    assert "no setting of recipe 'lgmsnet-busi' departs from its paper" in caplog.text


def made_up_cases(folder, channels, num_classes, sides):
    """Return two prepared scans whose structures are boxes in noise."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        case = folder / name
        case.mkdir(parents=True)
        label = np.zeros((1, *sides), np.uint8)
        for index in range(1, num_classes):
            low = rng.integers(0, np.maximum(1, np.array(sides) // 2))
            label[(0, *(slice(x, x + 8) for x in low))] = index
        image = label + rng.normal(size=(channels, *sides))
        rows = [(label[(0, *at)], *at) for at in np.argwhere(label[0])]
        np.save(case / "image.npy", image.astype(np.float32))
        np.save(case / "label.npy", label)
        np.save(case / "positions.npy", np.array(sorted(rows), np.int32))
        write_json(case / "case.json", {"spacing": [1.0] * len(sides)})
    return open_cases(folder, ("a", "b"))


def weights_of(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("name", "strict"), VARIANTS)
def test_a_recipe_trains(tmp_path, name, strict):
    """One epoch of one step on patches of 32 pixels or voxels, by a network as thin as it goes."""
    recipe, config = get_recipe(name), settings_of(name, strict)
    description, labels = load_description(recipe.origin.dataset), labels_of(recipe.origin)
    regions = config.loss in REGION_LOSSES
    sides = tuple(32 if side > 1 else 1 for side in config.patch_size)
    network = configure(
        config.model,
        in_channels=len(description.channels),
        num_classes=len(labels.regions) if regions else labels.num_classes,
        **{**config.model_options, **TINY[config.model]},
    )
    slices = {"slice_axis": sides.index(1)} if 1 in sides else {}
    patches = PatchDataset(
        sampler=PatchSampler(
            cases=made_up_cases(
                tmp_path / "cases", network.input_channels, labels.num_classes, sides
            ),
            patch_size=sides,
            batch_size=2,
            seed=0,
            oversample_foreground=config.oversample_foreground,
        ),
        augmentation=config.augmentation,
        mirror_axes=(),
        **slices,
    )
    loss = build_loss(config.loss, **config.loss_options)
    net = network.build()
    before = weights_of(net)
    heard = []
    run = fit(
        net,
        DeepSupervision(RegionTargets(loss, labels) if regions else loss, config.deep_supervision),
        patches,
        replace(
            config,
            optimiser=replace(config.optimiser, warmup=0),  # or the only step would be at rate 0
            batch_size=2,
            steps_per_epoch=1,
            epochs=1,
            patch_size=sides,
            precision="fp32",
        ),
        tmp_path / "run",
        validate=lambda network: {"dice": 0.5, "iou": 0.4},
        on_step=lambda *told: heard.append(told),
    )
    assert run.epochs_done == 1
    assert run.best_score == (0.4 if config.select_by == "iou" else 0.5)
    assert all(np.isfinite(loss) for _, _, loss, _ in heard)
    assert len(heard) == 1
    after = weights_of(net)
    assert not torch.equal(before, after)
    assert torch.isfinite(after).all()


def test_recipes_are_listed(cli):
    done = cli("recipes", "--json")
    listed = {recipe["name"]: recipe for recipe in json.loads(done.stdout)["recipes"]}
    assert {*EXPECTED, "auto"} <= set(listed)
    assert listed["glims-brats"]["origin"]["published"]["dice"]["mean"] == 92.14
    assert listed["glims-brats"]["strict_paper"]["model_options"] == {"released": True}
    assert "lightmedseg-acdc" in cli("recipes").stdout


def test_a_recipe_is_shown_with_all_that_it_does_otherwise(cli):
    shown = " ".join(cli("recipes", "mpunet-lits").stdout.split())
    for part in ("92.171", "optimiser.lr = 0.0001", "ce_input = sigmoid_of_prob", "alpha"):
        assert part in shown


def test_a_misspelt_recipe_is_refused(cli):
    done = cli("recipes", "glims-brat")
    assert done.exit_code
    assert "did you mean glims-brats" in done.stderr


def test_an_origin_with_an_unknown_entry_is_refused(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("recipe: {titlex: Mine}\nepochs: 3\n")
    with pytest.raises(ConfigError, match="titlex: unknown; did you mean title"):
        get_recipe(str(own))
    own.write_text("epochs: 3\n")
    assert get_recipe(str(own)).settings == {"epochs": 3}


def test_recipes_are_shipped_or_files_of_ones_own(tmp_path):
    assert lamina.recipe("demo")
    own = tmp_path / "own.yaml"
    own.write_text("epochs: 3\n")
    assert lamina.recipe(str(own)) == {"epochs": 3}
    with pytest.raises(ConfigError, match=r"recipe 'demos': unknown; did you mean demo"):
        lamina.recipe("demos")
    with pytest.raises(ConfigError, match=r"recipe 'x': unknown; known: .*demo.*ending in \.yaml"):
        lamina.recipe("x")


def test_a_recipe_has_two_sections_that_are_no_settings(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "recipe: {title: Mine}\nepochs: 3\noptimizer: {lr: 1.0}\n"
        "strict_paper: {optimizer: {betas: [0.1, 0.2]}}\n"
    )
    assert lamina.recipe(str(own)) == {"epochs": 3, "optimizer": {"lr": 1.0}}
    strict = lamina.recipe(str(own), strict_paper=True)
    assert strict == {"epochs": 3, "optimizer": {"lr": 1.0, "betas": [0.1, 0.2]}}
    own.write_text("epochs: 3\n")
    with pytest.raises(ConfigError, match=r"strict_paper: recipe .* has no such section"):
        lamina.recipe(str(own), strict_paper=True)
    own.write_text("strict_paper: yes\n")
    with pytest.raises(ConfigError, match="its section 'strict_paper' must be a mapping"):
        lamina.recipe(str(own))


def test_every_shipped_recipe_holds_valid_settings():
    for shipped in list_recipes():
        resolve(TrainConfig, shipped.settings)
