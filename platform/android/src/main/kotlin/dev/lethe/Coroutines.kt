package dev.lethe

import kotlin.coroutines.cancellation.CancellationException
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.async
import kotlinx.coroutines.channels.ProducerScope
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.isActive
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeoutOrNull

// Sessions in coroutines: blocking calls go to a dispatcher, and cancelling the coroutine cancels the call.

/** [LetheModel.open] away from the caller's thread. */
suspend fun openModel(path: String, dispatcher: CoroutineDispatcher = Dispatchers.IO): LetheModel =
    withContext(dispatcher) { LetheModel.open(path) }

/** [LetheModel.newSession] away from the caller's thread. */
suspend fun LetheModel.openSession(
    options: SessionOptions,
    dispatcher: CoroutineDispatcher = Dispatchers.IO,
): LetheSession = withContext(dispatcher) { newSession(options) }

/**
 * Runs calls of the session away from the caller's thread: `session.work { feedText(prompt, LetheSession.TEXT_BOS) }`.
 * When the coroutine is cancelled, so is the call, and this returns only when the session is free again.
 */
suspend fun <T> LetheSession.work(
    dispatcher: CoroutineDispatcher = Dispatchers.IO,
    block: LetheSession.() -> T,
): T = coroutineScope {
    val caller = Caller(this@work)
    val call = async(dispatcher) {
        caller.enter()
        try {
            block()
        } catch (e: LetheException) {
            // Ours ends as coroutines do; one that somebody else cancelled by LetheSession.cancel is a failure.
            if (e.code == LetheException.CANCELLED && !isActive) throw CancellationException(e.message, e)
            throw e
        } finally {
            caller.leave()
        }
    }
    try {
        call.await()
    } catch (e: CancellationException) {
        // Again and again, because the call may be on its way into the session, where the request would not find it.
        withContext(NonCancellable) {
            do caller.cancel() while (withTimeoutOrNull(RETRY_MS) { call.join() } == null)
        }
        throw e
    }
}

/** The thread that works for a coroutine, so that its cancellation meets no other coroutine's call. Thread-safe. */
private class Caller(private val session: LetheSession) {
    private var thread: Thread? = null

    @Synchronized
    fun enter() {
        thread = Thread.currentThread()
    }

    @Synchronized
    fun leave() {
        thread = null // it may work for another coroutine next
    }

    @Synchronized
    fun cancel() {
        thread?.let { session.cancelCallOf(it) }
    }
}

/**
 * The reply to a message of the user, as text that is ready to be shown: whole characters only. Generation begins with
 * the collection and ends with it; a slow collector slows it down.
 *
 * @param onEnd hears how the reply ended, unless it was cancelled
 */
fun LetheSession.chatFlow(
    message: String,
    options: GenerateOptions = GenerateOptions.DEFAULT,
    dispatcher: CoroutineDispatcher = Dispatchers.IO,
    onEnd: (Reply) -> Unit = {},
): Flow<String> = chatFlow(listOf(Message.user(message)), options, dispatcher, onEnd)

/** The same for a turn of several messages. */
fun LetheSession.chatFlow(
    messages: List<Message>,
    options: GenerateOptions = GenerateOptions.DEFAULT,
    dispatcher: CoroutineDispatcher = Dispatchers.IO,
    onEnd: (Reply) -> Unit = {},
): Flow<String> = channelFlow { onEnd(work(dispatcher) { chat(messages, options, sender(this@channelFlow)) }) }

/** The continuation of what was fed, as [chatFlow]. */
fun LetheSession.generateFlow(
    options: GenerateOptions = GenerateOptions.DEFAULT,
    dispatcher: CoroutineDispatcher = Dispatchers.IO,
    onEnd: (Reply) -> Unit = {},
): Flow<String> = channelFlow { onEnd(work(dispatcher) { generate(options, sender(this@channelFlow)) }) }

/** The whole reply to a message of the user. */
suspend fun LetheSession.reply(
    message: String,
    options: GenerateOptions = GenerateOptions.DEFAULT,
    dispatcher: CoroutineDispatcher = Dispatchers.IO,
): String {
    val text = StringBuilder()
    work(dispatcher) {
        chat(message, options) { piece, _ ->
            text.append(piece)
            true
        }
    }
    return text.toString()
}

/** Sends pieces until nobody collects any more. */
private fun sender(scope: ProducerScope<String>) = PieceListener { text, _ ->
    text.isEmpty() || scope.trySendBlocking(text).isSuccess
}

private const val RETRY_MS = 5L
