#!/usr/bin/env python3
"""Writes what CMA-ES computes, for tests/evolve/strategy_test.cc.

    evolution_fixtures.py GOLDEN tests/data/evolution.json

Needs numpy. GOLDEN is golden_4_cma.npz: twelve generations of the strategy of "An Evolved Universal Transformer Memory", from a
NumPy model that was checked against the authors' code (github SakanaAI/evo-memory at 3a0a6bd). This script first holds its own
CMA-ES, with the full covariance, to it. Then the
covariance is cut down to its diagonal after every generation, with learning rates times (n + 2) / 3, or to the identity. The
fitness is that of an ellipsoid. Draws are from the definitions of SplitMix64, xoshiro256++ and Box and Muller.
"""

import json
import math
import sys

import numpy as np

MASK = (1 << 64) - 1


class Random:
    def __init__(self, seed):
        self.state = []
        for _ in range(4):
            seed = (seed + 0x9e3779b97f4a7c15) & MASK
            mixed = ((seed ^ seed >> 30) * 0xbf58476d1ce4e5b9) & MASK
            mixed = ((mixed ^ mixed >> 27) * 0x94d049bb133111eb) & MASK
            self.state.append(mixed ^ mixed >> 31)

    def next(self):
        def rotl(x, k):
            return (x << k | x >> (64 - k)) & MASK
        s = self.state
        result = (rotl((s[0] + s[3]) & MASK, 23) + s[0]) & MASK
        shifted = (s[1] << 17) & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = rotl(s[3], 45)
        return result

    def uniform(self):
        return (self.next() >> 11) * 2.0 ** -53


def trial_seed(seed, trial):
    random = Random(seed)
    for _ in range(trial):
        random.next()
    return random.next()


def normals(seed, generation, index, n):
    random, out = Random(trial_seed(trial_seed(seed, generation), index)), []
    while len(out) < n:
        radius = math.sqrt(-2 * math.log(1 - random.uniform()))
        angle = 2 * math.pi * random.uniform()
        out += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array(out[:n])


class Cma:
    """The tutorial's algorithm (arXiv 1604.00772, appendix A) with a full matrix; `form` is what is left of it."""

    def __init__(self, n, population, sigma, form):
        self.n, self.form, self.sigma, self.generation = n, form, sigma, 0
        self.mean, self.p_sigma, self.p_c, self.C = np.zeros(n), np.zeros(n), np.zeros(n), np.eye(n)
        self.mu = population // 2
        raw = math.log((population + 1) / 2) - np.log(np.arange(1, population + 1))
        self.mu_eff = raw[:self.mu].sum() ** 2 / (raw[:self.mu] ** 2).sum()
        mu_eff_minus = raw[self.mu:].sum() ** 2 / (raw[self.mu:] ** 2).sum()
        rate = {"full": 1, "diagonal": (n + 2) / 3, "identity": 0}[form]
        self.c_1 = rate * 2 / ((n + 1.3) ** 2 + self.mu_eff)
        self.c_mu = rate * 2 * (self.mu_eff - 2 + 1 / self.mu_eff) / ((n + 2) ** 2 + self.mu_eff)
        assert self.c_1 + self.c_mu < 1
        alpha = 0 if rate == 0 else min(1 + self.c_1 / self.c_mu, 1 + 2 * mu_eff_minus / (self.mu_eff + 2),
                                        (1 - self.c_1 - self.c_mu) / (n * self.c_mu))
        self.weights = np.where(raw >= 0, raw / raw[raw > 0].sum(), -alpha * raw / raw[raw < 0].sum())
        self.c_sigma = (self.mu_eff + 2) / (n + self.mu_eff + 5)
        self.d_sigma = 1 + 2 * max(0, math.sqrt((self.mu_eff - 1) / (n + 1)) - 1) + self.c_sigma
        self.c_c = (4 + self.mu_eff / n) / (n + 4 + 2 * self.mu_eff / n)
        self.chi_n = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))

    def tell(self, y, fitness, inverse_root):
        """y [population, n]: steps drawn from the covariance, of which `inverse_root` is the inverse of the root."""
        self.generation += 1
        y = y[np.argsort(-fitness, kind="stable")]
        step = self.weights[:self.mu] @ y[:self.mu]
        self.mean = self.mean + self.sigma * step
        self.p_sigma = ((1 - self.c_sigma) * self.p_sigma +
                        math.sqrt(self.c_sigma * (2 - self.c_sigma) * self.mu_eff) * inverse_root @ step)
        length = np.linalg.norm(self.p_sigma)
        h = float(length / math.sqrt(1 - (1 - self.c_sigma) ** (2 * self.generation)) < (1.4 + 2 / (self.n + 1)) * self.chi_n)
        self.p_c = (1 - self.c_c) * self.p_c + h * math.sqrt(self.c_c * (2 - self.c_c) * self.mu_eff) * step
        w = np.where(self.weights >= 0, self.weights,
                     self.weights * self.n / np.square(y @ inverse_root).sum(axis=1))
        keep = 1 + self.c_1 * (1 - h) * self.c_c * (2 - self.c_c) - self.c_1 - self.c_mu * self.weights.sum()
        self.C = keep * self.C + self.c_1 * np.outer(self.p_c, self.p_c) + self.c_mu * (y.T * w) @ y
        self.C = self.C if self.form == "full" else np.diag(np.diag(self.C))
        self.sigma *= math.exp(self.c_sigma / self.d_sigma * (length / self.chi_n - 1))

    def state(self):
        return {"sigma": self.sigma, "mean": self.mean.tolist(), "variances": np.diag(self.C).tolist(),
                "path_sigma": self.p_sigma.tolist(), "path_c": self.p_c.tolist()}


def check_golden(golden):
    """The full form against the golden run, generation by generation."""
    cma = Cma(int(golden["n"]), int(golden["lam"]), float(golden["sigma0"]), "full")
    for g in range(12):
        B, D = golden[f"B_{g}"], golden[f"D_{g}"]  # in floats; and 1e-6 was added to the whole first covariance
        cma.tell(golden[f"y_{g}"], golden[f"fitness_{g}"], (B / D) @ B.T)
        for name, mine in (("mean", cma.mean), ("sigma", cma.sigma), ("C", cma.C), ("p_c", cma.p_c), ("p_sigma", cma.p_sigma)):
            np.testing.assert_allclose(mine, golden[f"{name}_{g}"], rtol=1e-12, atol=1e-12, err_msg=f"{name} of generation {g}")


def run(form, n, population, generations, seed):
    cma, fitness_of_all = Cma(n, population, 0.5, form), []
    scale = 10.0 ** (2 * np.arange(n) / (n - 1))
    for g in range(generations):
        z = np.array([normals(seed, g, k, n) for k in range(population)])
        values, vectors = np.linalg.eigh(cma.C)
        y = z @ np.diag(np.sqrt(np.diag(cma.C)))
        fitness = -(scale * np.square(cma.mean + cma.sigma * y - 1)).sum(axis=1)
        cma.tell(y, fitness, vectors @ np.diag(values ** -0.5) @ vectors.T)
        fitness_of_all.append(fitness.tolist())
    return {"covariance": form, "dimensions": n, "population": population, "sigma": 0.5, "seed": seed,
            "fitness": fitness_of_all, "end": cma.state(),
            "constants": {name: getattr(cma, name) for name in ("mu_eff", "c_1", "c_mu", "c_sigma", "d_sigma", "c_c", "chi_n")},
            "weights": cma.weights.tolist()}


def main():
    check_golden(np.load(sys.argv[1]))
    runs = [run("diagonal", 7, 9, 40, 3), run("diagonal", 60, 32, 40, 4), run("identity", 24, 32, 12, 5)]
    with open(sys.argv[2], "w") as out:
        json.dump({"runs": runs}, out)
        out.write("\n")


main()
