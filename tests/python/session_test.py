"""The Python package over the real model: what it says is what `lethe run` says, and what it holds it gives back."""

import gc
import json
import math
import pathlib
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import weakref

import numpy

import lethe
from support import MODEL, QUESTION, MiB, run_lethe

ROOT = pathlib.Path(__file__).resolve().parents[2]


def reply_threads():
    return [thread for thread in threading.enumerate() if thread.name == "lethe reply"]


class SessionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = lethe.Model(MODEL)
        cls.session = cls.model.session(64 * MiB)

    def setUp(self):
        self.session.reset()

    def tearDown(self):
        self.assertEqual(reply_threads(), [])

    def raises(self, name):
        test = self

        class Raises:
            def __enter__(self):
                return self

            def __exit__(self, kind, error, _traceback):
                test.assertIsInstance(error, lethe.Error)
                test.assertEqual(error.name, name)
                self.error = error
                return True

        return Raises()


class ReplyTest(SessionTest):
    def test_a_reply_is_that_of_the_executable(self):
        told = run_lethe("--max-tokens", "24", QUESTION)
        reply = self.session.chat(QUESTION, max_tokens=24)
        pieces = list(reply)
        self.assertGreater(len(pieces), 5)
        self.assertEqual("".join(pieces), told["text"])
        self.assertEqual(reply.tokens, len(told["ids"]))
        self.assertEqual(reply.stop_reason, told["stop_reason"])
        self.assertRaises(StopIteration, next, reply)

    def test_so_is_one_with_a_system_prompt_and_a_stop_text(self):
        told = run_lethe("--max-tokens", "24", "--system", "Answer in French.", QUESTION)
        self.assertEqual("".join(self.session.chat(QUESTION, system="Answer in French.", max_tokens=24)), told["text"])
        self.session.reset()
        before, stop, _ = told["text"].partition(told["text"].split()[2])
        reply = self.session.chat(QUESTION, system="Answer in French.", max_tokens=24, stop=[stop])
        self.assertEqual("".join(reply), before)
        self.assertEqual(reply.stop_reason, "text")

    def test_pieces_are_whole_characters(self):
        self.session.feed_text("Emoji, one after the other: 😀 😃 😄 😁 😆 😅 🤣 😂 🙂 🙃 🫠 😉 😊")
        pieces = list(self.session.generate(max_tokens=16, ignore_eos=True))
        self.assertTrue(any(ord(character) > 0xFFFF for character in "".join(pieces)), pieces)
        self.assertNotIn("\ufffd", "".join(pieces[:-1]))

    def test_the_conversation_holds_what_was_read(self):
        fed = self.session.feed_text("Once upon a time")
        with self.session.generate(max_tokens=100, ignore_eos=True) as reply:
            read = [next(reply) for _ in range(3)]
            time.sleep(0.05)  # in which nothing more is computed
            self.assertIsNone(reply.stop_reason)
        self.assertEqual(reply.stop_reason, "closed")
        self.assertEqual(self.session.stats.position, fed + reply.tokens)
        self.assertRaises(StopIteration, next, reply)
        # And goes on from there as if it had never stopped.
        rest = "".join(self.session.generate(max_tokens=5, ignore_eos=True))
        self.session.reset()
        self.session.feed_text("Once upon a time")
        whole = "".join(self.session.generate(max_tokens=reply.tokens + 5, ignore_eos=True))
        self.assertEqual("".join(read) + rest, whole)

    def test_a_loop_that_is_left_ends_the_reply(self):
        for _piece in self.session.chat(QUESTION):
            break
        self.assertEqual(reply_threads(), [])
        self.session.feed_text("The session can be used again.")

    def test_a_session_is_in_use_while_its_reply_is_read(self):
        reply = self.session.chat(QUESTION)
        next(reply)
        with self.raises("bad_state"):
            self.session.feed_text("no")
        self.assertGreater(self.session.stats.position, 0)
        reply.close()
        reply.close()
        self.session.feed_text("yes")

    def test_closing_ends_a_reply(self):
        with self.model.session(64 * MiB) as session:
            reply = session.chat(QUESTION)
            next(reply)
        self.assertEqual(reply.stop_reason, "closed")
        self.assertRaises(StopIteration, next, reply)
        self.assertRaises(ValueError, session.reset)
        self.assertRaises(ValueError, next, session.generate())

    def test_a_reply_that_is_never_read_computes_nothing(self):
        position = self.session.feed_text("Once upon a time")
        self.session.generate()
        self.session.generate().close()
        self.assertEqual(self.session.stats.position, position)

    def test_cancel_ends_a_reply_with_an_error(self):
        reply = self.session.chat(QUESTION)
        next(reply)
        self.session.cancel()
        with self.raises("cancelled"):
            list(reply)
        self.assertIsNone(reply.stop_reason)
        self.assertGreater(len(list(self.session.generate(max_tokens=2, ignore_eos=True))), 0)

    def test_cancel_reaches_a_feed_in_another_thread(self):
        ids = self.session.tokenize(QUESTION) * 400
        canceller = threading.Timer(0.05, self.session.cancel)
        canceller.start()
        with self.raises("cancelled"):
            self.session.feed(ids)
        canceller.join()
        self.assertLess(self.session.stats.position, len(ids))

    def test_sampling(self):
        def told(**options):
            self.session.reset()
            self.session.set_sampling(**options)
            self.session.feed_text("Once upon a time")
            return "".join(self.session.generate(max_tokens=16, ignore_eos=True))

        greedy = told(temperature=0)
        self.assertEqual(told(temperature=1.5, seed=1), told(temperature=1.5, seed=1))
        self.assertNotEqual(told(temperature=1.5, seed=1), told(temperature=1.5, seed=2))
        self.assertEqual(told(top_k=1), greedy)
        self.session.set_sampling(temperature=0)

    def test_a_program_may_end_in_the_middle(self):
        program = f"""
import lethe
session = lethe.Model({MODEL!r}).session(64 * lethe.MiB)
reply = session.chat("Count.")
print(bool(next(reply)))
"""
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "True\n", ""))


class TokensTest(SessionTest):
    def test_tokens_are_those_of_transformers(self):
        golden = json.loads((ROOT / "tests/data/golden_smollm2.json").read_text())["transformers_f32"]
        for case in golden:
            ids = self.session.tokenize(case["prompt"])
            self.assertEqual(ids, case["prompt_ids"])
            self.assertEqual(self.session.detokenize(ids), case["prompt"])
        long = golden[0]["prompt"] * 100
        self.assertEqual(self.session.detokenize(self.session.tokenize(long)), long)

    def test_special_tokens(self):
        [end] = self.session.tokenize("<|im_end|>", special=True)
        self.assertGreater(len(self.session.tokenize("<|im_end|>")), 1)
        self.assertEqual(self.model.token_bytes(end), b"<|im_end|>")
        turn = self.session.tokenize_turn([{"role": "user", "content": QUESTION}])
        self.assertIn(end, turn)
        self.assertIn(QUESTION, self.session.detokenize(turn))
        self.assertEqual(self.session.feed_turn([{"role": "user", "content": QUESTION}]), len(turn))

    def test_score_and_logits_agree(self):
        ids = self.session.tokenize("The capital of France is Paris, and that of Italy is Rome.")
        scores = self.session.score(ids)
        rows = {}
        self.session.reset()
        self.session.feed_logits(numpy.array(ids), lambda index, row: rows.update({index: row.copy()}))
        self.assertEqual(list(rows), list(range(len(ids))))
        for index, score in enumerate(scores):
            row = rows[index].astype(numpy.float64)
            expected = row[ids[index + 1]] - row.max() - math.log(numpy.exp(row - row.max()).sum())
            self.assertAlmostEqual(score, expected, places=4)
        last = self.session.logits()
        self.assertEqual((last.dtype, last.shape), (numpy.float32, (self.model.info.vocab,)))
        numpy.testing.assert_array_equal(last, rows[len(ids) - 1])
        # The likeliest token is what a greedy reply begins with.
        [piece] = list(self.session.generate(max_tokens=1, ignore_eos=True))
        self.assertEqual(piece, self.session.detokenize([last.argmax()]))

    def test_an_exception_comes_out_of_the_callback(self):
        def refuse(index, _row):
            raise KeyError(index)

        with self.assertRaises(KeyError):
            self.session.feed_logits(self.session.tokenize(QUESTION), refuse)
        self.session.reset()
        self.session.feed_text(QUESTION)

    def test_embeddings(self):
        width = self.model.info.embed_dim
        self.session.feed_embeddings(numpy.full((3, width), 0.01))
        self.assertEqual(self.session.stats.position, 3)
        with self.assertRaisesRegex(ValueError, f"{width}"):
            self.session.feed_embeddings(numpy.zeros((3, width - 1)))
        with self.raises("invalid_argument"):
            self.session.feed_embeddings(numpy.full((1, width), numpy.nan))


class MemoryTest(SessionTest):
    def test_a_plan_is_what_is_taken(self):
        plan = self.model.plan(16 * MiB, kv_type="int8")
        with self.model.session(16 * MiB, kv_type="int8") as session:
            self.assertEqual(session.memory, plan)
        self.assertLessEqual(plan.total_bytes, 16 * MiB)
        self.assertEqual(sum(plan.tag_bytes.values()), plan.total_bytes)
        self.assertIn("kv_pool", plan.tag_bytes)

    def test_a_cap_that_is_too_small_is_refused_with_the_smallest(self):
        with self.raises("ram_too_small") as refused:
            self.model.session(1 * MiB)
        self.assertEqual(refused.error.code, 20)
        smallest = self.model.plan(64 * MiB).minimum_ram_bytes
        self.model.session(smallest).close()
        with self.raises("ram_too_small"):
            self.model.session(smallest - 1)
        self.assertEqual(str(pickle.loads(pickle.dumps(refused.error))), str(refused.error))

    def test_lowering_the_cap_forgets(self):
        with self.model.session(32 * MiB, threads=1) as session:
            session.feed(session.tokenize(QUESTION) * 60)
            session.pin(0, 4)
            before = session.stats
            session.set_ram(12 * MiB)
            after = session.stats
            self.assertLess(after.cached_tokens, before.cached_tokens)
            self.assertEqual(after.position, before.position)
            self.assertLessEqual(session.memory.total_bytes, 12 * MiB)
            self.assertTrue(list(session.generate(max_tokens=3, ignore_eos=True)))

    def test_saved_and_forked_conversations_go_on(self):
        self.session.feed_text("Once upon a time, there was")
        with tempfile.TemporaryDirectory() as folder, self.session.fork() as fork, self.model.session(32 * MiB) as other:
            path = pathlib.Path(folder, "saved")
            self.session.save(path)
            expected = list(self.session.generate(max_tokens=12, ignore_eos=True))
            self.assertEqual(list(fork.generate(max_tokens=12, ignore_eos=True)), expected)
            other.restore(path)
            self.assertEqual(list(other.generate(max_tokens=12, ignore_eos=True)), expected)
            with self.raises("io"):
                other.restore(pathlib.Path(folder, "absent"))

    def test_a_trace_is_written_while_the_session_works(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "trace")
            self.session.start_trace(path, interval_ms=0)
            with self.raises("bad_state"):
                self.session.start_trace(path)
            self.session.feed_text("Once upon a time")
            self.session.stop_trace()
            self.assertEqual(path.read_bytes()[8:12], b"LTRC")  # after the size and the root's offset
            with self.raises("bad_state"):
                self.session.stop_trace()
            with self.raises("io"):
                self.session.start_trace(pathlib.Path(folder, "absent", "trace"))

    def test_options_are_checked(self):
        for options in ({"kv_type": "f64"}, {"threads": -1}, {"sinks": 1 << 32}):
            self.assertRaises(ValueError, self.model.plan, 64 * MiB, **options)
        self.assertRaises(ValueError, self.model.plan, -1)
        self.assertRaises(TypeError, self.model.plan, 64 * MiB, colour="red")
        with self.raises("invalid_argument") as refused:
            self.model.plan(64 * MiB, policy="none")
        self.assertIn("snapkv", str(refused.error))
        with self.raises("not_a_model") as refused:
            self.model.session(64 * MiB, policy="namm", namm=b"nothing of the kind")
        self.assertIn("19 bytes", str(refused.error))
        with self.raises("invalid_argument"):
            self.session.generate(stop=[str(number) for number in range(9)]).__next__()

    def test_what_is_forgotten_is_freed(self):
        def forget(cycle):
            model = lethe.Model(MODEL)
            session = model.session(32 * MiB)
            for _piece in session.chat(QUESTION):
                break
            if cycle:
                session.itself = model.itself = (session, model)
            return weakref.ref(model), weakref.ref(session)

        for cycle in (False, True):
            model, session = forget(cycle)
            gc.collect()
            self.assertIsNone(model())
            self.assertIsNone(session())

    def test_closing_a_model_closes_its_sessions(self):
        with lethe.Model(MODEL) as model:
            self.assertEqual(model.info.architecture, "llama")
            self.assertTrue(model.info.has_chat_template)
            session = model.session(32 * MiB)
        self.assertRaises(ValueError, session.reset)
        self.assertRaises(ValueError, lambda: model.info)
        model.close()
        session.close()

    def test_a_file_that_is_no_model(self):
        with self.raises("not_a_model"):
            lethe.Model(__file__)
        with self.raises("io"):
            lethe.Model("/nowhere/model.lethe")


if __name__ == "__main__":
    unittest.main()
