package dev.lethe

import android.content.ComponentCallbacks2.TRIM_MEMORY_BACKGROUND
import android.content.ComponentCallbacks2.TRIM_MEMORY_COMPLETE
import android.content.ComponentCallbacks2.TRIM_MEMORY_RUNNING_CRITICAL
import android.content.ComponentCallbacks2.TRIM_MEMORY_RUNNING_LOW
import android.content.ComponentCallbacks2.TRIM_MEMORY_RUNNING_MODERATE
import android.content.ComponentCallbacks2.TRIM_MEMORY_UI_HIDDEN
import dev.lethe.android.MemoryPressure
import java.util.concurrent.CountDownLatch
import kotlin.concurrent.thread
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout

/** The hook, called as Android would. Of Android there are declarations here, no code. */
@Timeout(300)
class MemoryPressureTest {
    private fun inSession(body: (LetheSession) -> Unit) {
        val model: LetheModel = Support.openModel()
        model.use { model.newSession(SessionOptions.ofRam(Support.RAM)).use { body(it) } }
    }

    /** A page less does not work. */
    private fun assertLeast(session: LetheSession) {
        val memory = session.memory()
        assertTrue(memory.totalBytes <= memory.capBytes)
        Support.assertCode(LetheException.RAM_TOO_SMALL) { session.setRam(memory.capBytes - 4096) }
    }

    @Test
    fun `the cap goes down with the level, and up only when asked`() = inSession { session ->
        val pressure = MemoryPressure(session)
        val cap = { session.memory().capBytes }
        pressure.onTrimMemory(TRIM_MEMORY_UI_HIDDEN)
        assertEquals(Support.RAM, cap())
        pressure.onTrimMemory(TRIM_MEMORY_RUNNING_MODERATE)
        assertEquals(Support.RAM / 4 * 3, cap())
        pressure.onTrimMemory(TRIM_MEMORY_RUNNING_LOW)
        assertEquals(Support.RAM / 2, cap())
        pressure.onTrimMemory(TRIM_MEMORY_RUNNING_MODERATE)
        assertEquals(Support.RAM / 2, cap())
        pressure.onTrimMemory(TRIM_MEMORY_RUNNING_CRITICAL)
        assertLeast(session)
        pressure.restore()
        assertEquals(Support.RAM, cap())
        pressure.onTrimMemory(TRIM_MEMORY_BACKGROUND)
        assertEquals(Support.RAM / 2, cap())
        @Suppress("DEPRECATION")
        pressure.onLowMemory()
        assertLeast(session)
        pressure.onTrimMemory(TRIM_MEMORY_COMPLETE)
        assertEquals(null, session.ramFailure())
        session.close()
        pressure.restore()
        pressure.onTrimMemory(TRIM_MEMORY_COMPLETE)
    }

    @Test
    fun `an app has rules of its own`() = inSession { session ->
        val pressure = MemoryPressure(session) { level, full ->
            if (level == TRIM_MEMORY_UI_HIDDEN) full / 8 * 7 else null
        }
        pressure.onTrimMemory(TRIM_MEMORY_UI_HIDDEN)
        assertEquals(Support.RAM / 8 * 7, session.memory().capBytes)
        pressure.onTrimMemory(TRIM_MEMORY_COMPLETE)
        assertEquals(Support.RAM / 8 * 7, session.memory().capBytes)
    }

    @Test
    fun `a reply in progress goes on within the new cap`() = inSession { session ->
        val pressure = MemoryPressure(session)
        session.feedText("The waters of the river made everyone forget. ".repeat(60), 0)
        val begun = CountDownLatch(2)
        var tokens = 0L
        val generating = thread {
            tokens = session.generate(Support.tokens(30)) { _, _ ->
                begun.countDown()
                true
            }.tokens
        }
        begun.await()
        pressure.onTrimMemory(TRIM_MEMORY_RUNNING_CRITICAL)
        generating.join()
        assertEquals(30L, tokens)
        assertLeast(session)
        assertTrue(session.stats().evictions > 0)
    }
}
