"""lethe.lm_eval with requests as the harness makes them."""

import types
import unittest

from lethe.lm_eval import Lethe
from support import MODEL, MiB, run_lethe


def requests(*arguments):
    return [types.SimpleNamespace(args=args) for args in arguments]


class LmEvalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = Lethe(MODEL, 64 * MiB, prefix="<|endoftext|>")
        cls.session = cls.model.session

    def score(self, text, continuation_tokens):
        self.session.reset()
        return sum(self.session.score(self.session.tokenize(text))[-continuation_tokens:])

    def test_loglikelihood(self):
        context = "The capital of France is"
        told = run_lethe("--raw", "--max-tokens", "3", context)["text"]
        (greedy, is_greedy), (other, other_is_greedy), (spaced, _), (nothing, _) = self.model.loglikelihood(requests(
            (context, told), (context, " Madrid"), (context + " ", "Madrid"), (context, "")))
        self.assertAlmostEqual(greedy, self.score(context + told, 3), places=3)
        self.assertAlmostEqual(other, self.score(context + " Madrid", len(self.session.tokenize(" Madrid"))), places=3)
        self.assertEqual((is_greedy, other_is_greedy), (True, False))
        self.assertEqual(spaced, other)
        self.assertEqual(nothing, 0)
        self.assertGreater(greedy, other)

    def test_a_text_without_a_context_stands_behind_the_prefix(self):
        text = "Water is wet."
        [(first, _)] = self.model.loglikelihood(requests(("", text)))
        [whole] = self.model.loglikelihood_rolling(requests((text,)))
        self.session.reset()
        expected = sum(self.session.score(self.session.tokenize("<|endoftext|>" + text, special=True)))
        self.assertAlmostEqual(first, expected, places=3)
        self.assertAlmostEqual(whole, expected, places=3)
        with self.assertRaisesRegex(ValueError, "prefix"):
            Lethe(MODEL, 64 * MiB).loglikelihood_rolling(requests((text,)))

    def test_generate_until(self):
        context = "1, 2, 3, 4,"
        told = run_lethe("--raw", "--max-tokens", "12", context)["text"]
        free, until, again = self.model.generate_until(requests(
            (context, {"max_gen_toks": 12}), (context, {"until": ["7"], "max_gen_toks": 12, "do_sample": False}),
            (context, {"until": "7", "max_gen_toks": 12, "temperature": 0.0})))
        self.assertEqual(free, told)
        self.assertIn("7", told)
        self.assertEqual(until, told[:told.index("7")])
        self.assertEqual(again, until)


if __name__ == "__main__":
    unittest.main()
