package dev.lethe

import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** The samples run: with a real model, and with none. */
class SampleTest {
    @Test
    fun `samples answer and explain`() = runBlocking {
        val model = Support.environment("LETHE_TEST_MODEL")
        val question = "What is the capital of France?"
        val expected = Support.letheText(question, 200, "--ram", "64MiB")
        val text = StringBuilder()
        sample.ask(model, question) { text.append(it) }
        assertEquals(expected, text.toString())
        text.clear()
        sample.Ask.ask(model, question) { text.append(it) }
        assertEquals(expected, text.toString())
        text.clear()
        sample.ask("/no/such/model", question) { text.append(it) }
        assertTrue(text.startsWith("io: ") && "/no/such/model" in text) { text.toString() }
    }
}
