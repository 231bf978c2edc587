import pytest
import torch
from transformers import ASTConfig, ASTForAudioClassification

from mrkd_ray.common.errors import UserError
from mrkd_ray.networks import catalogue as networks
from mrkd_ray.networks.spectrogram_transformer import SpectrogramTransformer

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def test_it_is_the_packages_network_with_the_first_positions() -> None:
    """At AST's own length it is AST; of a window, the AST of that length with those positions."""
    module = SpectrogramTransformer(5, **SMALL).eval()
    table = module.audio_spectrogram_transformer.embeddings.position_embeddings
    torch.nn.init.normal_(table)
    windows = torch.randn(2, 3, 128, 1024)
    for frames, columns in ((1024, 101), (150, 14)):
        plain = ASTForAudioClassification(ASTConfig(num_labels=5, max_length=frames, **SMALL))
        state = module.state_dict()
        key = "audio_spectrogram_transformer.embeddings.position_embeddings"
        kept = [0, 1] + [2 + 101 * row + column for row in range(12) for column in range(columns)]
        plain.load_state_dict(state | {key: state[key][:, kept]})
        with torch.no_grad():
            expected = plain.eval()(0.5 * windows[:, 0, :, :frames].mT).logits
            found = module(windows[..., :frames])
        torch.testing.assert_close(found, expected)


def test_all_of_it_trains() -> None:
    module = SpectrogramTransformer(5, **SMALL)
    module(torch.randn(2, 3, 128, 150)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_by_name_it_has_the_shared_files_shape_and_refuses_other_bins() -> None:
    with torch.device("meta"):
        module, _ = networks.build("ast", 7, windows=(128, 150))
        with pytest.raises(UserError, match=r"'ast'.* 64 x 150.*logmel128"):
            networks.check_input(module, "ast", 64, 150)
    assert networks.classifier_layer(module) == "classifier.dense"
    positions = module.audio_spectrogram_transformer.embeddings.position_embeddings
    assert positions.shape == (1, 1214, 768)
    assert networks.default_weights("ast") == "none"


def test_without_transformers_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '.\[ast\]'"):
        networks.build("ast", 3)
