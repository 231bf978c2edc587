"""Draw docs/images/idea.svg: what the project does, with representations of one embedded sound.

python -m docs.make_picture
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.arrays import Float32
from mrkd_ray.datasets.synthetic import SAMPLE_RATE, make_clip
from mrkd_ray.representations.catalogue import compute_clip

FILE = Path(__file__).parent / "images" / "idea.svg"
BRANCHES = (
    ("logmel64", "log-Mel", "#12a594", (0.80, 0.13, 0.07)),
    ("cqt", "CQT", "#e5703a", (0.55, 0.35, 0.10)),
    ("gammatone64", "gammatone", "#8464d6", (0.68, 0.12, 0.20)),
)
KIND, SEED = "vibrato", 6  # the sound that is shown
CLASSES = ("bird", "rain", "bell")
SCENE = (100, 60)  # columns and rows of a picture of a representation
STYLE = """
  .card { fill: #f6f8fa; stroke: #d5dbe1 }
  .box { fill: #ffffff; stroke: #c3ccd5 }
  .track { fill: #e3e8ed }
  text { fill: #1c2733; font: 15px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif }
  .small { font-size: 12.5px; fill: #56636f }
  .head { font-weight: 600; font-size: 15px }
  .flow { fill: none; stroke: #7b8894; stroke-width: 2 }
  .back { fill: none; stroke: #c28a00; stroke-width: 2.5; stroke-dasharray: 7 5 }
  .wave { fill: none; stroke: #56636f; stroke-width: 1.3 }
  .tip { fill: #7b8894 } .goldtip { fill: #c28a00 } .gold { fill: #d99f0b }
  @media (prefers-color-scheme: dark) {
    .card { fill: #171d24; stroke: #323c47 }
    .box { fill: #202932; stroke: #44515e }
    .track { fill: #303b46 }
    text { fill: #e8eef4 } .small { fill: #a6b3bf }
    .flow { stroke: #8996a3 } .wave { stroke: #a6b3bf } .tip { fill: #8996a3 }
    .back { stroke: #e5b53c } .goldtip { fill: #e5b53c }
  }"""


def draw() -> str:
    """Return the picture as SVG."""
    waveform = _sound()
    shown = compute_clip([name for name, *_ in BRANCHES], Recording(waveform, SAMPLE_RATE))
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 430" role="img" '
        'aria-label="Recordings become several representations; a network learns from each; '
        'the networks average their soft labels and learn from the average.">',
        f"<style>{STYLE}\n</style>",
        '<defs><marker id="t" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="tip" d="M0 0 L10 5 L0 10z"/></marker>'
        '<marker id="g" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6.5" '
        'markerHeight="6.5" orient="auto"><path class="goldtip" d="M0 0 L10 5 L0 10z"/></marker>'
        "</defs>",
        '<rect class="card" x="1" y="1" width="998" height="428" rx="14"/>',
        *(
            f'<text class="head" x="{x}" y="36" text-anchor="middle">{text}</text>'
            for x, text in (
                (100, "recordings"),
                (290, "representations"),
                (480, "networks"),
                (648, "soft labels"),
                (868, "teacher"),
            )
        ),
        *_recordings(waveform),
    ]
    for i, (name, title, colour, soft) in enumerate(BRANCHES):
        parts += _branch(70 + 104 * i, shown[name], title, colour, soft)
    mean = tuple(float(np.mean(values)) for values in zip(*(b[3] for b in BRANCHES), strict=True))
    parts += [
        '<rect class="box" x="788" y="136" width="160" height="152" rx="10"/>',
        *_bars(806, 158, mean, "gold", 62, labels=True, step=30),
        '<text class="small" x="868" y="268" text-anchor="middle">their average</text>',
        '<path class="back" d="M868 290 V396 H480 V366" marker-end="url(#g)"/>',
        '<text class="small" x="674" y="388" text-anchor="middle">each network learns from the '
        "label and from the teacher</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _sound() -> Float32:
    """One and a half seconds of a sound of the embedded data set."""
    wave = make_clip(KIND, np.random.default_rng(SEED))
    return wave[: int(1.5 * SAMPLE_RATE)].astype(np.float32)


def _recordings(waveform: Float32) -> list[str]:
    """A pile of recordings, the one on top with its waveform and its label."""
    heights = [float(np.abs(part).max()) for part in np.array_split(waveform, 116)]
    lines = "".join(
        f"M{42 + j} {222 - 36 * h / max(heights):.1f}v{max(1, 72 * h / max(heights)):.1f}"
        for j, h in enumerate(heights)
    )
    pile = [
        f'<rect class="box" x="{30 + 7 * i}" y="{150 + 7 * i}" width="136" height="112" rx="8"/>'
        for i in (2, 1, 0)
    ]
    return [
        *pile,
        f'<path class="wave" d="{lines}"/>',
        '<text class="small" x="42" y="172">label: bird</text>',
        *(
            f'<path class="flow" d="M182 218 C204 218 196 {y} 217 {y}" marker-end="url(#t)"/>'
            for y in (114, 218, 322)
        ),
    ]


def _branch(
    top: int, frames: Float32, title: str, colour: str, soft: tuple[float, ...]
) -> list[str]:
    middle = top + 44
    layers = [
        f'<rect x="{444 + 20 * j}" y="{middle - h / 2}" width="13" height="{h}" rx="3" '
        f'fill="{colour}" opacity="{0.55 + 0.15 * j}"/>'
        for j, h in enumerate((56, 42, 28))
    ]
    return [
        f'<image x="222" y="{top + 8}" width="136" height="72" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{_png(frames, colour)}"/>',
        f'<rect x="222" y="{top + 8}" width="136" height="72" fill="none" stroke="{colour}"/>',
        f'<text class="small" x="290" y="{top + 95}" text-anchor="middle">{title}</text>',
        f'<path class="flow" d="M362 {middle} H428" marker-end="url(#t)"/>',
        f'<rect class="box" x="432" y="{top + 4}" width="96" height="80" rx="8"/>',
        *layers,
        f'<path class="flow" d="M532 {middle} H586" marker-end="url(#t)"/>',
        *_bars(594, top + 14, soft, colour, 70, labels=False, step=22),
        f'<path class="flow" d="M702 {middle} C740 {middle} 744 212 782 212" '
        'marker-end="url(#t)"/>',
    ]


def _bars(
    x: int, y: int, values: tuple[float, ...], colour: str, width: int, *, labels: bool, step: int
) -> list[str]:
    parts = []
    for i, (label, value) in enumerate(zip(CLASSES, values, strict=True)):
        left, top = x + (48 if labels else 34), y + step * i
        fill = 'class="gold"' if colour == "gold" else f'fill="{colour}"'
        parts += [
            f'<text class="small" x="{x}" y="{top + 11}">{label}</text>',
            f'<rect class="track" x="{left}" y="{top}" width="{width}" height="13" rx="3"/>',
            f'<rect {fill} x="{left}" y="{top}" width="{width * value:.1f}" height="13" rx="3"/>',
        ]
    return parts


def _png(frames: Float32, colour: str) -> str:
    """A representation [frames, bins] as a picture from dark to its colour to light, base64."""
    picture = Image.fromarray(frames.T[::-1].astype(np.float32)).resize(SCENE)
    values = np.asarray(picture)
    low, high = np.quantile(values, [0.05, 0.998])
    part = np.clip((values - low) / (high - low), 0, 1)[..., None]
    own = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
    dark, light = own * 0.16, own + (255 - own) * 0.75
    pixels = np.where(
        part < 0.6, dark + (own - dark) * part / 0.6, own + (light - own) * (part - 0.6) / 0.4
    )
    image = Image.fromarray(pixels.round().astype(np.uint8)).quantize(32)
    with io.BytesIO() as file:
        image.save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(draw(), encoding="utf-8")
    print(FILE.relative_to(Path(__file__).parents[1]))
