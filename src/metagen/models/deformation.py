"""One drawing, drawn again by another hand: a deformation of it from a learned density, then another pen."""

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from metagen.core.episode import Params, Shots
from metagen.core.model import Generator
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.rows import in_parts
from metagen.models.autoregressive_pen import AutoregressivePen
from metagen.models.critic import Critic, Recogniser, chosen
from metagen.models.pen import Pen, VectorField
from metagen.models.registration import Deformation, Guess, strided
from metagen.ranges import (
    Colours,
    Decay,
    Finite,
    NonNegativeFloat,
    PositiveFloat,
    SideBy4,
    Turns,
    Width,
    checked,
)

GUESSED = 0.1
"""Weight of the distance between the guess and what descent made of it."""
VARIED = 0.4
"""Of the images that teach to recognise: how much they are deformed, where one is what people differ by."""


class Deformed(Generator):
    r"""x ~ p(x | a o z, M), z ~ p(z | a, M), with a one of the K support images M, drawn at random.

    z is a deformation (:mod:`metagen.models.registration`); training pairs an image of the support with a
    query image b of the same class and registers them, z* = argmin E(z; a, b). Both densities are flows
    (Lipman et al.: *Flow matching for generative modeling*, ICLR 2023), trained at once with the guess g of
    the registration. With noise of its own for each, z_t = (1 - t) e + t z*, and x_t likewise,

    .. math:: L = \underbrace{E(g(a, b); a, b) + w \|g(a, b) - z^*\|^2}_\text{registration}
              + \underbrace{\|v(z_t, t, a, M) - (z^* - e)\|^2}_\text{deformation}
              + \underbrace{\mathrm{H}(b, D(x_t, t, a \circ z^*, M))}_\text{pen}

    where D estimates E[b | x_t] pixel by pixel and H is the cross-entropy, whose least is there, too;
    its velocity is (D - x_t) / (1 - t). Pairs that cannot be registered teach the flows nothing. How
    characters vary is what is learned; densities over transforms shared by classes are from Miller, Matsakis
    and Viola: *Learning from one example through shared densities on transforms*, CVPR 2000.

    What the flows still miss is made up for by a critic c of pairs (a, x), trained when they have learned:
    of a few candidates one is drawn with probability proportional to e^{c(a, x)}, sampling importance
    resampling (Rubin 1988) by the ratio of densities that a discriminator estimates (Azadi et al.:
    *Discriminator rejection sampling*, ICLR 2019). Guidance multiplies it by (p(x | M) / p(x))^g, which a
    network that recognises classes estimates (:class:`metagen.models.critic.Recogniser`), and prefers what
    is clearly of this class (Dhariwal and Nichol: *Diffusion models beat GANs on image
    synthesis*, NeurIPS 2021).

    The images M are the buffer ``memory`` (N, K, C, S, S), which ``learner=in_context`` writes.
    Each query image is shown a random number of them, 1 to K. With ``relative`` both flows are also told the
    mean of the guesses g(a, m) over the images m that are shown: where the others lie, as seen from a.
    """

    per_class: ClassVar[tuple[str, ...]] = ()
    head: ClassVar[tuple[str, ...]] = ("pen.pixels.*",)
    encoder: ClassVar[tuple[str, ...]] = ("see.*",)
    needs_memory = True
    surrogate = True  # z* is held constant
    loss_unit = "sum of the errors of registration, deformation and pen"
    memory: Tensor

    @checked
    def __init__(
        self,
        size: SideBy4 = 28,
        colours: Colours = 1,
        points: Annotated[int, Ge(4), Le(1024)] = 7,
        unit: PositiveFloat = 0.03,
        stiffness: NonNegativeFloat = 0.3,
        contrast: NonNegativeFloat | None = None,
        refine_steps: Annotated[int, Ge(0), Le(1000)] = 12,
        refine_rate: PositiveFloat = 0.3,
        least_likeness: Finite = 0.75,
        features: Width = 256,
        channels: Width = 48,
        pen_channels: Width | None = None,
        hidden: Width = 256,
        sample_steps: Turns = 12,
        spread: NonNegativeFloat = 1.0,
        noise: NonNegativeFloat = 1.0,
        start: Decay = 0.0,
        pen: bool = True,
        pen_density: Literal["flow", "autoregressive"] = "flow",
        redrawn: bool = True,
        candidates: Turns = 1,
        selection: NonNegativeFloat = 1.0,
        guidance: NonNegativeFloat = 0.0,
        learn: Literal["flows", "pen", "critic"] = "flows",
        relative: bool = False,
    ) -> None:
        """Build the model for images of ``colours`` x ``size`` x ``size``.

        Args:
            size: S, a multiple of 4.
            colours: C, 1 or 3; in colour what lies outside an image is its border repeated, else blank.
            points: control points on a side, 4 or more.
            unit: typical displacement of one of them, in half sides.
            stiffness: lambda of the registration's energy.
            contrast: with which strokes are resampled; None: 12 of grey images, 0 in colour.
            refine_steps: of the descent that follows the guess.
            refine_rate: its first step, in typical displacements.
            least_likeness: pairs that registration leaves less alike, 1 - gap, teach the flows nothing.
            features: numbers that are read from an image.
            channels: width of the nets of images.
            pen_channels: width of the pen's net at half the resolution, a fourth of its width of what is no
                image; None: ``channels``, and ``hidden``. Of an autoregressive one: of its tokens; None:
                twice ``channels``.
            hidden: width of all that is no image.
            sample_steps: steps of each flow.
            spread: standard deviation of the noise from which deformations are drawn; 1 is the density.
            noise: the same of the pen.
            start: time at which the pen's flow begins, in [0, 1), from noise blended with the deformed image
                (Meng et al.: *SDEdit*, ICLR 2022); 0 is the density, more keeps more of the strokes.
            pen: whether there is one; without it a step takes a third of the time.
            pen_density: of the pen: a flow over pixels; or, of grey images, an autoregressive one of ink
                (:class:`metagen.models.autoregressive_pen.AutoregressivePen`), at temperature ``noise``.
            redrawn: whether samples are drawn in another pen; False shows the deformed image.
            candidates: of which the critic chooses a sample; 1: without a critic.
            selection: s, of that choice; 1 corrects the density, more prefers what is like other people's.
            guidance: g, of that choice; more prefers what is clearly of the class, and is less diverse.
            learn: the flows and the registration; or then the pen alone, given what was learned without one;
                or then the critic and what recognises, on which none of them depends.
            relative: whether the flows are told where the other support images lie; of use with K > 1.

        Raises:
            MetagenError: an argument is out of its range, or a pen is to learn where there is none.
        """
        super().__init__()
        if learn not in ("flows", "pen", "critic"):
            raise MetagenError(f"model.learn={learn}: expected flows, pen or critic")
        if learn == "pen" and not pen:
            raise MetagenError("model.learn=pen: there is none; set model.pen=true")
        if pen and pen_density == "autoregressive" and colours != 1:
            raise MetagenError(
                "model.pen_density=autoregressive draws ink on paper: set data.channels=1, or use flow"
            )
        contrast = (12.0 if colours == 1 else 0.0) if contrast is None else contrast
        self.least_likeness, self.refine_steps, self.refine_rate = least_likeness, refine_steps, refine_rate
        self.sample_steps, self.spread, self.redrawn = sample_steps, spread, redrawn and pen
        self.noise, self.start, self.colours = noise, start, colours
        self.candidates, self.selection, self.guidance = candidates, selection, guidance
        self.learn, self.relative = learn, relative
        self.pixelwise = self.redrawn and pen_density == "autoregressive"
        self.deform = Deformation(size, points, unit, stiffness, contrast, colours)
        self.later = ("pen.*",) if learn == "pen" else ()
        self.training_only = () if relative else ("guess.*",)
        self.guess = Guess(size, self.deform.numbers, max(8, channels * 2 // 5), hidden, colours)
        net, seen = strided(colours, size, max(8, channels * 2 // 3))
        self.see = nn.Sequential(net, nn.Linear(seen, features), nn.SiLU())
        known = 2 * features + (self.deform.numbers if relative else 0)
        self.velocity = VectorField(self.deform.numbers, known, hidden)
        wide = (channels, hidden) if pen_channels is None else (pen_channels, 4 * pen_channels)
        self.pen: Pen | AutoregressivePen | None = None
        if pen and pen_density == "flow":
            self.pen = Pen(colours, known, *wide)
        elif pen:
            self.pen = AutoregressivePen(size, known, pen_channels or 2 * channels)
        self.critic = Critic(colours, size, max(8, channels // 8 * 4), contrast > 0)
        self.recogniser = Recogniser(colours, size, max(8, channels // 4 * 4))
        self.register_buffer("memory", torch.zeros(1, 0, colours, size, size), persistent=False)

    def encode(self, support: Shots) -> Params:
        """Return the support images themselves."""
        return {"memory": support.x}

    def loss(self, shots: Shots) -> Tensor:
        """Return L, the mean over the images of ``shots``, each paired with a support image of its class."""
        b, key = shots.x.flatten(0, 1), shots.key
        a, features = self._given(shots.y.flatten(), rng.fold_in(key, 1), some=True)
        if self.learn == "critic":
            return self._critic_loss(a, shots, features)
        with torch.set_grad_enabled(self.learn == "flows" and torch.is_grad_enabled()):
            z, taught, registration = self._registered(a, b)
        if self.learn == "pen":
            return (taught * self._pen_loss(b, self.deform.sharp(z, a), features.detach(), key)).sum()
        error = self._deformation_loss(z, features, rng.fold_in(key, 2))
        if self.pen is not None:
            error = error + self._pen_loss(b, self.deform.sharp(z, a), features, rng.fold_in(key, 3))
        return registration + (taught * error).sum()

    def _registered(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return deformations z* (B, D) from a to b, weights that sum to 1, and the error of the guess."""
        blurred = self.deform.blurred(a), self.deform.blurred(b)
        guess = self.guess(a, b)
        z = self.deform.refine(guess.detach(), *blurred, self.refine_steps, self.refine_rate).detach()
        levels = list(zip(*blurred, strict=True))
        energy = sum(self.deform.energy(guess, *pair) for pair in levels) / len(levels)
        registration = energy + GUESSED * (guess - z).square().mean(1)
        likeness = 1 - self.deform.gap(z, *levels[-1])
        taught = (likeness > self.least_likeness).to(z) / (likeness > self.least_likeness).sum().clamp(min=1)
        return z, taught, registration.mean()

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Draw one image for each class index of ``y`` (B,): (B, C, S, S)."""
        many = y.repeat(self.candidates)
        a, features = self._given(many, rng.fold_in(key, 1), some=False)
        x = self.draw(a, features, key)
        if self.candidates == 1:
            return x
        logits = self.selection * in_parts(self.critic, a, x)
        if self.guidance:
            m = self.recogniser.prototypes(self.memory)[many]
            logits = logits + self.guidance * in_parts(self.recogniser, x, m)
        return chosen(x, logits.unflatten(0, (self.candidates, -1)), rng.fold_in(key, 4))

    def draw(self, a: Tensor, features: Tensor, key: Tensor) -> Tensor:
        """Return images a (B, C, S, S), drawn anew."""
        z = self.spread * rng.normal(rng.fold_in(key, 2), (a.shape[0], self.deform.numbers), a.dtype)
        h = 1 / self.sample_steps
        for i in range(self.sample_steps):  # Heun's second-order steps
            t = z.new_full((a.shape[0],), i * h)
            k1 = self.velocity(z, t, features)
            z = z + h / 2 * (k1 + self.velocity(z + h * k1, t + h, features))
        moved = in_parts(self.deform.sharp, z, a)
        return self.redraw(moved, features, rng.fold_in(key, 3)) if self.redrawn else moved

    def redraw(self, c: Tensor, features: Tensor, key: Tensor) -> Tensor:
        """Return deformed images c (B, C, S, S) in another pen."""
        if isinstance(self.pen, AutoregressivePen):
            return self.pen.sample(c, features, key, self.noise)
        assert self.pen is not None
        return self.pen.sample(c, features, key, self.noise, self.start, self.sample_steps)

    def _given(self, y: Tensor, key: Tensor, some: bool) -> tuple[Tensor, Tensor]:
        """Return for classes y (B,) an image each, and features of it and of the others of its class.

        ``some``: of a random number of them.
        """
        shots = self.memory.shape[1]
        if not shots:
            raise MetagenError(
                "model=deformation varies support images and was given none: use learner=in_context and "
                "task.shots=1 or more"
            )
        order = rng.uniform(rng.fold_in(key, 1), (y.shape[0], shots)).argsort(-1)
        count = (rng.uniform(rng.fold_in(key, 2), (y.shape[0], 1)) * shots).long() + 1 if some else shots
        features = self.see(self.memory.flatten(0, 1)).unflatten(0, self.memory.shape[:2])[y]
        shown = (order.argsort(-1) < count).to(features)[..., None]
        own = torch.nn.functional.one_hot(order[:, 0], shots).to(features)[..., None]
        chosen = self.memory[y, order[:, 0]]
        known = [(features * own).sum(1), (features * shown).sum(1) / shown.sum(1)]
        if self.relative:
            known.append((self._seen_from(chosen, self.memory[y]) * shown).sum(1) / shown.sum(1))
        return chosen, torch.cat(known, -1)

    def _seen_from(self, a: Tensor, others: Tensor) -> Tensor:
        """Return the guesses (B, K, D) from a (B, C, S, S) to each of the others (B, K, C, S, S)."""
        shots = others.shape[1]
        pairs = a.repeat_interleave(shots, 0), others.flatten(0, 1)
        return self.guess(*pairs).detach().unflatten(0, (-1, shots))

    def _critic_loss(self, a: Tensor, shots: Shots, features: Tensor) -> Tensor:
        """Return the error of the critic, which tells b from what is drawn instead, and of the recogniser."""
        b, y = shots.x.flatten(0, 1), shots.y.flatten()
        with torch.no_grad():
            x = self.draw(a, features, rng.fold_in(shots.key, 5))
            which = rng.uniform(rng.fold_in(shots.key, 6), (len(self.memory),)) * self.memory.shape[1]
            one = self.memory[torch.arange(len(which), device=which.device), which.long()]
            given = self._varied(one, rng.fold_in(shots.key, 7))
            seen = self._varied(b, rng.fold_in(shots.key, 8))
        recognised = self.recogniser.loss(seen, y, self.recogniser.embed(given), x)
        return self.critic.loss(a, b, x) + recognised

    def _varied(self, x: Tensor, key: Tensor) -> Tensor:
        """Return images (B, C, S, S), each under a small random deformation."""
        z = VARIED * rng.normal(key, (len(x), self.deform.numbers), x.dtype)
        return self.deform.soft(z, x)

    def _deformation_loss(self, z: Tensor, features: Tensor, key: Tensor, draws: int = 4) -> Tensor:
        """Return the error of the velocity (B,), the mean of a few draws, which cost little."""
        e = rng.normal(rng.fold_in(key, 1), (draws, *z.shape), z.dtype)
        t = rng.uniform(rng.fold_in(key, 2), (draws, len(z)), z.dtype)
        zt = torch.lerp(e, z.expand_as(e), t[..., None])
        many = features.expand(draws, -1, -1).flatten(0, 1)
        v = self.velocity(zt.flatten(0, 1), t.flatten(), many).unflatten(0, (draws, len(z)))
        return (v - (z - e)).square().mean((0, 2))

    def _pen_loss(self, b: Tensor, c: Tensor, features: Tensor, key: Tensor) -> Tensor:
        """Return the cross-entropy of the images b (B, C, S, S), a mean over pixels, (B,)."""
        if isinstance(self.pen, AutoregressivePen):
            return self.pen(b, c, features) / b[0].numel()
        assert self.pen is not None
        return self.pen.error(b, c, features, key)
