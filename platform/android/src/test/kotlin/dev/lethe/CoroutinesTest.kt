package dev.lethe

import java.util.Collections
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeoutOrNull
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout

@Timeout(300)
class CoroutinesTest {
    private companion object {
        lateinit var model: LetheModel

        @JvmStatic
        @BeforeAll
        fun open() = runBlocking { model = openModel(Support.environment("LETHE_TEST_MODEL")) }

        @JvmStatic
        @AfterAll
        fun close() = model.close()
    }

    private fun inSession(body: suspend (LetheSession) -> Unit) = runBlocking {
        model.openSession(SessionOptions.builder(Support.RAM).prefillChunk(32).build()).use { body(it) }
    }

    @Test
    fun `a flow is the reply of the executable`() = inSession { session ->
        val ends = mutableListOf<Reply>()
        val options = GenerateOptions.builder().maxTokens(24).build()
        val pieces = session.chatFlow("Who was Lethe?", options) { ends += it }.toList()
        assertEquals(Support.letheText("Who was Lethe?", 24), pieces.joinToString(""))
        assertTrue(pieces.none { it.isEmpty() })
        assertEquals(1, ends.size)
        assertTrue(ends[0].tokens >= pieces.size)
    }

    @Test
    fun `a whole reply`() = inSession { session ->
        val options = GenerateOptions.builder().maxTokens(24).build()
        assertEquals(Support.letheText("Who was Lethe?", 24), session.reply("Who was Lethe?", options))
    }

    @Test
    fun `a collector that leaves ends the reply`() = inSession { session ->
        session.work { Support.feedPrompt(this, "Once upon a time") }
        val before = session.stats().position
        var ended = false
        val pieces = session.generateFlow(Support.ENDLESS) { ended = true }.take(3).toList()
        assertEquals(3, pieces.size)
        assertFalse(ended)
        // At most what a channel holds was generated in vain.
        assertTrue(session.stats().position - before in 3..100) { "${session.stats().position - before} tokens" }
        val text = Support.letheText("Once upon a time", 24, "--raw", "--ignore-eos")
        assertTrue(text.startsWith(pieces.joinToString("")))
    }

    @Test
    fun `cancelling the coroutine cancels a prompt`() = inSession { session ->
        val prompt = session.tokenize("The waters of the river made everyone forget. ".repeat(2000), 0)
        runBlocking {
            val job = launch(Dispatchers.Default) { session.work { feed(*prompt) } }
            delay(300)
            job.cancelAndJoin()
        }
        assertTrue(session.stats().position < prompt.size)
        session.work { feedText("It goes on.", 0) }
        assertEquals(4L, session.work { generate(Support.tokens(4)) { _, _ -> true } }.tokens)
    }

    @Test
    fun `wherever a cancellation comes the session is free and whole afterwards`() = inSession { session ->
        val delays = (0..40L).map { it / 2 }
        for (ms in delays) {
            val done = withTimeoutOrNull(ms) { session.work { feedText(" more and more of it".repeat(8), 0) } }
            val position = session.stats().position // in use, if the call were still in
            // A request that was left behind would end this one.
            session.work { feedText(" more", 0) }
            assertEquals(position + 1, session.stats().position)
            if (done != null) assertEquals(40L, done)
        }
    }

    @Test
    fun `a cancellation meets no other coroutine's call`() = inSession { session ->
        session.work { Support.feedPrompt(this, "Once upon a time") }
        repeat(200) {
            coroutineScope {
                val first = launch(Dispatchers.Default) { session.generateFlow(Support.ENDLESS).collect() }
                delay(2)
                first.cancel() // and does not wait for it
                while (true) {
                    try {
                        session.work { feedText(" more of it", 0) }
                        break
                    } catch (e: LetheException) {
                        assertEquals(LetheException.BAD_STATE, e.code, e.message)
                    }
                }
            }
        }
    }

    @Test
    fun `a cancelled coroutine sees a cancellation, a cancelled session a failure`() = inSession { session ->
        session.work { Support.feedPrompt(this, "Once upon a time") }
        val seen = Collections.synchronizedList(mutableListOf<Throwable>())
        val job = runBlocking {
            val job = launch(Dispatchers.Default) {
                try {
                    session.generateFlow(Support.ENDLESS).collect()
                } catch (e: Throwable) {
                    seen += e
                    throw e
                }
            }
            delay(100)
            job.cancelAndJoin()
            job
        }
        assertTrue(job.isCancelled)
        assertTrue(seen.single() is CancellationException) { "$seen" }

        val failure = assertThrows(LetheException::class.java) {
            runBlocking {
                session.generateFlow(Support.ENDLESS).collect { session.cancel() }
            }
        }
        assertEquals(LetheException.CANCELLED, failure.code)
    }

    @Test
    fun `failures come out as they are`() = inSession { session ->
        val failure = assertThrows(LetheException::class.java) {
            runBlocking { session.generateFlow().collect() }
        }
        assertEquals(LetheException.BAD_STATE, failure.code)
        assertThrows(IllegalStateException::class.java) {
            runBlocking { session.work { error("mine") } }
        }
        assertNull(session.ramFailure())
    }

    @Test
    fun `two sessions at once`() = runBlocking {
        val prompts = listOf("Once upon a time", "The capital of France is")
        val texts = prompts.map { prompt ->
            async(Dispatchers.Default) {
                model.openSession(SessionOptions.ofRam(Support.RAM)).use { session ->
                    session.work { Support.feedPrompt(this, prompt) }
                    session.generateFlow(Support.tokens(24)).toList().joinToString("")
                }
            }
        }.awaitAll()
        assertEquals(prompts.map { Support.letheText(it, 24, "--raw", "--ignore-eos") }, texts)
    }
}
