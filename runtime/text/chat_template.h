// Messages to the text a chat model was trained on, by the model's own Jinja template.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/status.h"

namespace lethe {

struct ChatMessage {
  std::string_view role, content;  // "system", "user", "assistant", ...
};

struct ChatTemplate {
  std::string_view source;              // Jinja
  std::string_view bos_text, eos_text;  // of the model's tokens, empty for none: what the template calls bos_token, ...
};

// All functions write to `out` and set `*size`; when the text is longer than `out` they return kPromptTooLong with
// `*size` the room it needs. kTemplate: there is no template, it is damaged or refused (template_check.h), it raised an
// exception itself (then with its sentence), or it wants more than the limits below.
//
// Rendering obtains memory from the heap, less than chat_heap_bytes() with the templates of chat models, and gives it
// all back except for tables of the engine (48 KiB), which the first call leaves for the process. A template cannot
// make this crash, as far as known, but a hostile one can ask for much more memory and time (doubling texts, nested
// loops). Takes 256 KiB of stack at most, 32 KiB with the templates of chat models. Any number of threads at a time.
// `text_bytes`: of the text that is rendered.
constexpr uint64_t chat_heap_bytes(uint64_t template_bytes, uint64_t text_bytes) {
  return 96 * 1024 + 16 * template_bytes + 10 * text_bytes;
}

// The whole conversation. `add_generation_prompt` appends what makes the model answer.
Status render_chat(const ChatTemplate& chat, std::span<const ChatMessage> messages, bool add_generation_prompt,
                   std::span<char> out, uint64_t* size);

// An endless conversation never renders its history again. first_turn gives the text of the first messages, ready for
// the answer. next_turn gives what follows the assistant's answer: the end of its turn (which a sampled end token is
// part of, so that token is not fed by itself) and the new messages, ready for the next answer. It is found with a
// stand-in history: a question, once alone and ready for its answer, and once with an answer and the new messages.
// kTemplate when the second text is not the first, the answer, and more: such a template rewrites its history.
Status first_turn(const ChatTemplate& chat, std::span<const ChatMessage> messages, std::span<char> out, uint64_t* size);
Status next_turn(const ChatTemplate& chat, std::span<const ChatMessage> messages, std::span<char> out, uint64_t* size);

}  // namespace lethe
