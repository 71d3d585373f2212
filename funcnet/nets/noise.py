"""How much noise each step of a diffusion adds."""

import numpy as np

from ..types import is_whole, require, shown


def noise_schedule(steps: int, kind: str = "linear") -> np.ndarray:
    """The variance of the noise that each diffusion step adds, β: `(steps,)`, float32.

    Args:
        steps: How many.
        kind: "linear": from 1e-4 to 0.02 over 1000 steps, and as much noise in all over fewer;
            "cosine": what is left of an example falls as a squared cosine.

    Raises:
        ValueError: If `steps` is no whole number of 1 or more, or the kind is neither.

    >>> betas = noise_schedule(1000)
    >>> print(f"{betas[0]:.4f} {betas[-1]:.4f}")
    0.0001 0.0200

    Reference: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", 2020, section 4;
        Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equation 17.
    """
    require(
        is_whole(steps),
        "noise_schedule",
        "a number of steps that is a whole number of 1 or more",
        shown(steps),
        "Write noise_schedule(1000); a few hundred will do for small images.",
    )
    require(
        kind in ("linear", "cosine"),
        "noise_schedule",
        "the kind 'linear' or 'cosine'",
        repr(kind),
        "Choose one of the two.",
    )
    if kind == "linear":
        betas = np.linspace(1e-4, 0.02, steps) * (1000 / steps)
    else:
        time = np.arange(steps + 1) / steps
        left = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = 1 - left[1:] / left[:-1]
    return np.minimum(betas, 0.999).astype(np.float32)
