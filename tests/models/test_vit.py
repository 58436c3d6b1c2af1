"""The vision transformer: counts, names of weights, attention maps and how they are drawn."""

import pytest
import torch
from torch.nn import functional as F

from lamina.errors import BundleError, ConfigError
from lamina.models.reference import fit_reference, load_reference
from lamina.models.vit import DINOHead, ViT, ViTConfig, attention_maps
from weights import count


def small(**options) -> ViT:
    """A transformer whose attention is far from even, in evaluation mode."""
    torch.manual_seed(0)
    settings = {"image_size": 64, "width": 128, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    vit = ViTConfig(**settings | options).build().eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return vit


@pytest.mark.parametrize(("image_size", "weights"), [(224, 21_665_664), (256, 21_688_704)])
def test_weights_of_the_small_transformer(image_size, weights):
    with torch.device("meta"):
        vit = ViTConfig(image_size=image_size).build()
        assert count(vit) == weights
        assert vit(torch.zeros(2, 3, 256, 224)).shape == (2, 384)
        assert vit.attention(torch.zeros(2, 3, 256, 224)).shape == (2, 6, 16, 14)


def test_weights_of_the_head():
    with torch.device("meta"):
        head = DINOHead(384, 65_536)
    assert count(head.mlp) == 5_509_376
    assert count(head.last_layer) == 16_777_216


def test_weights_start_small_and_biases_at_nothing():
    torch.manual_seed(0)
    vit = ViTConfig(width=128, depth=1, num_heads=2).build()
    for name, parameter in vit.named_parameters():
        if parameter.dim() > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), name
        else:
            start = float(name.endswith("weight"))
            assert torch.equal(parameter, torch.full_like(parameter, start)), name


def plain_feature_and_attention(vit: ViT, image: torch.Tensor):
    """Compute them from the state dict alone, with whole attention matrices."""
    w, heads, t = vit.state_dict(), vit.config.num_heads, vit.config.token_size
    width = vit.config.width

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    squares = F.unfold(image, t, stride=t).transpose(1, 2)
    tokens = squares @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    x = torch.cat([w["cls_token"].expand(len(image), -1, -1), tokens], 1) + w["pos_embed"]
    for block in range(vit.config.depth):
        name = f"blocks.{block}"
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        q, k, v = (part.unflatten(-1, (heads, -1)) for part in qkv.split(width, dim=-1))
        matrix = torch.einsum("bnhd,bmhd->bhnm", q, k) / (width // heads) ** 0.5
        matrix = matrix.softmax(-1)
        read = torch.einsum("bhnm,bmhd->bnhd", matrix, v).flatten(2)
        x = x + linear(read, f"{name}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        x = x + linear(hidden, f"{name}.mlp.fc2")
    return norm(x, "norm")[:, 0], matrix


@torch.no_grad()
def test_feature_and_attention_row_equal_those_of_the_whole_matrix():
    vit, image = small(), torch.randn(2, 3, 64, 64)
    feature, matrix = plain_feature_and_attention(vit, image)
    torch.testing.assert_close(vit(image), feature, rtol=1e-4, atol=1e-4)
    row = matrix[:, :, 0, 1:].unflatten(-1, (4, 4))
    assert row.std() > 0.01
    torch.testing.assert_close(vit.attention(image), row, rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("half", [False, True])
def test_attention_of_a_256_pixel_slice(half):
    vit = ViTConfig(depth=1).build().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        maps = vit.attention(torch.randn(1, 3, 256, 256))
    assert maps.shape == (1, 6, 16, 16)
    assert maps.dtype == torch.float32
    assert maps.min() >= 0
    assert maps.sum((2, 3)).max() <= 1


@torch.no_grad()
def test_positions_are_as_learned_at_their_own_size_and_bicubic_at_others():
    vit = small()
    learned = vit.pos_embed[:, 1:].transpose(1, 2).unflatten(-1, (4, 4))
    seen = []
    vit.blocks[0].register_forward_pre_hook(lambda _m, x: seen.append(x[0]))
    for size, mode in (((64, 64), None), ((96, 32), "bicubic")):
        vit(torch.zeros(1, 3, *size))
        expected = learned if mode is None else F.interpolate(learned, (6, 2), mode=mode)
        expected = expected.flatten(2).transpose(1, 2) + vit.patch_embed.proj.bias
        torch.testing.assert_close(seen[-1][:, 1:], expected)
        torch.testing.assert_close(seen[-1][:, :1], vit.cls_token + vit.pos_embed[:, :1])


@torch.no_grad()
def test_training_leaves_branches_out_and_keeps_their_mean():
    vit, image = small(drop_path=0.5), torch.randn(64, 3, 32, 32)
    assert [block.drop_path for block in vit.blocks] == [0.0, 0.5]
    assert torch.equal(vit(image), vit(image))
    last = vit.blocks[1]
    for parameter in last.mlp.fc2.parameters():
        parameter.zero_()  # leaves the branch of attention alone
    x = torch.randn(64, 5, 128)
    branch = last(x) - x
    trained = last.train()(x) - x
    kept = trained.flatten(1).any(1)
    assert 0.2 < kept.float().mean() < 0.8
    torch.testing.assert_close(trained[kept], 2 * branch[kept])


def test_sizes_that_cut_a_token_are_refused():
    for read in (small(), small().attention):
        with pytest.raises(ValueError, match=r"\(40, 64\) must be multiples of 16"):
            read(torch.zeros(1, 3, 40, 64))


def test_every_fault_of_a_configuration_is_reported():
    faults = {
        "in_channels": 0,
        "image_size": 40,
        "width": 385,
        "depth": 0,
        "mlp_ratio": 0,
        "drop_path": 1.0,
    }
    with pytest.raises(ConfigError) as caught:
        ViTConfig(**faults)
    for field in faults:
        assert f"{field} = " in str(caught.value)
    with pytest.raises(ConfigError, match=r"token_size = 0.*num_heads = 0"):
        ViTConfig(token_size=0, num_heads=0)


@torch.no_grad()
def test_scores_of_the_head_are_cosines_whatever_the_length_of_its_directions():
    torch.manual_seed(0)
    head = DINOHead(8, 5, hidden=16)
    feature = torch.randn(3, 8)
    scores = head(feature)
    directions = head.last_layer.weight.unsqueeze(0)
    expected = F.cosine_similarity(head.mlp(feature).unsqueeze(1), directions, dim=-1)
    torch.testing.assert_close(scores, expected)
    head.last_layer.weight.mul_(7)
    torch.testing.assert_close(head(feature), scores)


class Looking(ViT):
    """A transformer that looks where it is told."""

    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__(ViTConfig(width=2, depth=1, num_heads=1))
        self.maps = maps

    def attention(self, image: torch.Tensor) -> torch.Tensor:
        self.image = image
        return self.maps


def test_maps_are_stretched_to_the_unit_range_for_each_head_and_slice():
    torch.manual_seed(0)
    scale = torch.tensor([1.0, 0.01, 1e-4]).reshape(3, 1, 1)
    maps = attention_maps(
        Looking(scale * torch.rand(2, 3, 16, 16)), torch.randn(2, 1, 70, 50), (224, 200)
    )
    assert maps.shape == (2, 3, 224, 200)
    assert torch.equal(maps.amin((2, 3)), torch.zeros(2, 3))
    assert torch.equal(maps.amax((2, 3)), torch.ones(2, 3))


@pytest.mark.parametrize("size", [(256, 256), (224, 224), (100, 300)])
def test_a_map_that_is_the_same_everywhere_becomes_nothing(size):
    maps = attention_maps(
        Looking(torch.full((1, 2, 16, 16), 1 / 257)), torch.zeros(1, 1, 64, 64), size
    )
    assert not maps.any()


def test_maps_are_squares_by_default_and_smooth_on_request():
    row = torch.zeros(1, 1, 16, 16)
    row[..., 8:] = 1
    vit, image = Looking(row), torch.zeros(1, 1, 256, 256)
    squares = attention_maps(vit, image, (256, 256))
    assert torch.equal(squares, row.repeat_interleave(16, 2).repeat_interleave(16, 3))
    smooth = attention_maps(vit, image, (256, 256), upsample="bilinear")
    assert smooth.unique().numel() > 16
    halved = attention_maps(vit, image, (128, 128))
    assert halved.unique().numel() > 2  # antialiased: the edge is no longer sharp


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_slices_reach_the_transformer_at_its_size_and_in_its_channels(channels):
    vit = Looking(torch.rand(1, 1, 16, 16))
    image = torch.randn(1, channels, 32, 64)
    attention_maps(vit, image, (32, 64))
    expected = F.interpolate(image, (256, 256), mode="bilinear")
    if channels != 3:
        expected = expected.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(vit.image, expected)


def test_real_maps_need_no_gradient_and_follow_the_image():
    vit, image = small(), torch.zeros(2, 1, 64, 64)
    image[1, :, 16:32, 16:32] = 5
    maps = attention_maps(vit, image, (48, 48), vit_size=64)
    assert not maps.requires_grad
    assert maps.shape == (2, 2, 48, 48)
    assert (maps[0] - maps[1]).abs().max() > 0.1


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_a_published_state_dict_finds_its_place(prefix):
    vit = small(image_size=48, token_size=8, depth=3)
    published = {f"{prefix}{name}": x for name, x in vit.state_dict().items()}
    published |= {"head.mlp.0.weight": torch.zeros(3, 3), "head.last_layer.weight_g": torch.ones(3)}
    fit = fit_reference("dino", None, published)
    assert fit.config == vit.config
    assert fit.misfits == {}
    image = torch.randn(1, 3, 48, 48)
    assert torch.equal(fit.network(image), vit(image))


def test_the_published_names_are_those_of_the_small_transformer():
    with torch.device("meta"):
        names = set(ViTConfig().build().state_dict())
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    modules = [
        "patch_embed.proj",
        "norm",
        *(f"blocks.{i}.{part}" for i in range(12) for part in parts),
    ]
    both = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    assert names == {"cls_token", "pos_embed"} | both


def test_weights_of_another_network_are_refused():
    state = small().state_dict()
    del state["patch_embed.proj.weight"]
    with pytest.raises(BundleError, match="not those of the published network"):
        fit_reference("dino", None, state)
    lacking = small().state_dict() | {"blocks.0.ls1.gamma": torch.ones(128)}
    del lacking["norm.bias"]
    with pytest.raises(
        BundleError, match=r"1 missing: norm.bias; 1 unexpected: blocks.0.ls1.gamma"
    ):
        load_reference("dino", None, lacking)
