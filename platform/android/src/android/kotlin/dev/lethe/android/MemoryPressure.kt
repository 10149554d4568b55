package dev.lethe.android

import android.content.ComponentCallbacks2
import android.content.res.Configuration
import dev.lethe.LetheSession

/**
 * Lowers the cap of a session when the system says that memory is short, also in the middle of a reply:
 *
 *     val pressure = MemoryPressure(session)
 *     context.registerComponentCallbacks(pressure)
 *     ...
 *     context.unregisterComponentCallbacks(pressure)   // before or after session.close()
 *     pressure.restore()                               // when the app is in front again: room for what is to come
 *
 * What the session forgets for a lower cap does not come back. Make one when the session is idle. To be used on the
 * main thread.
 *
 * @param capFor from a level of onTrimMemory and the cap at first: the cap in bytes, 0 for the smallest that works, or
 *     null to leave it as it is
 */
class MemoryPressure @JvmOverloads constructor(
    private val session: LetheSession,
    private val capFor: (level: Int, full: Long) -> Long? = ::defaultCap,
) : ComponentCallbacks2 {
    private val full = session.memory().capBytes
    private var cap = full

    override fun onTrimMemory(level: Int) {
        val wanted = capFor(level, full) ?: return
        if (wanted >= cap) return // it was lowered before; only restore() raises it
        cap = wanted
        session.requestRam(wanted)
    }

    /** What systems before Android 14 call when background processes are gone already. */
    @Deprecated("Deprecated in ComponentCallbacks")
    override fun onLowMemory() = onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_COMPLETE)

    override fun onConfigurationChanged(newConfig: Configuration) {}

    /** Gives the session its first cap again. */
    fun restore() {
        if (cap == full) return
        cap = full
        session.requestRam(full)
    }

    companion object {
        /**
         * While the app runs: three quarters, half, the least. In the background: half, a quarter, the least. Nothing
         * when only the screen is gone: people come back. (Since Android 14 of these levels only UI_HIDDEN and
         * BACKGROUND still come.)
         */
        @JvmStatic
        fun defaultCap(level: Int, full: Long): Long? = when {
            level >= ComponentCallbacks2.TRIM_MEMORY_COMPLETE -> 0
            level >= ComponentCallbacks2.TRIM_MEMORY_MODERATE -> full / 4
            level >= ComponentCallbacks2.TRIM_MEMORY_BACKGROUND -> full / 2
            level >= ComponentCallbacks2.TRIM_MEMORY_UI_HIDDEN -> null
            level >= ComponentCallbacks2.TRIM_MEMORY_RUNNING_CRITICAL -> 0
            level >= ComponentCallbacks2.TRIM_MEMORY_RUNNING_LOW -> full / 2
            level >= ComponentCallbacks2.TRIM_MEMORY_RUNNING_MODERATE -> full / 4 * 3
            else -> null
        }
    }
}
