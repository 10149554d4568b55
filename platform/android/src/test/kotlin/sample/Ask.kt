package sample

import dev.lethe.GenerateOptions
import dev.lethe.LetheException
import dev.lethe.SessionOptions
import dev.lethe.chatFlow
import dev.lethe.openModel
import dev.lethe.openSession

/** Cancelling the coroutine stops the reply at once and frees everything. */
suspend fun ask(model: String, question: String, show: (String) -> Unit) {
    try {
        openModel(model).use { opened ->
            opened.openSession(SessionOptions.ofRam(64L shl 20)).use { session -> // 64 MiB, whatever comes
                val options = GenerateOptions.builder().maxTokens(200).build()
                session.chatFlow(question, options).collect { show(it) } // whole characters only
            }
        }
    } catch (e: LetheException) {
        show("${e.codeName}: ${e.sentence}")
    }
}
