// The only file of the library that is compiled with exceptions and RTTI: minja, a header, needs both. Nothing is
// thrown past the functions at the end.
#include "runtime/text/chat_template.h"

#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 with sanitizers, inside <regex>, wherever it is used
#endif

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/text/template_check.h"

// minja looks for each token with a search through the rest of the template and then asks whether the match is at the
// front: quadratic, and most of the time of a turn. Only one of its searches needs more than the front. When another
// version of minja names its expressions otherwise, this does not compile.
namespace {
constexpr auto kFlags_regex = std::regex_constants::match_continuous;
constexpr auto kFlags_non_text_open_regex = std::regex_constants::match_default;
}  // namespace
#define regex_search(from, to, match, expression) regex_search(from, to, match, expression, kFlags_##expression)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <minja/minja.hpp>
#pragma GCC diagnostic pop
#undef regex_search

namespace lethe {
namespace {

constexpr size_t kMaxStackBytes = 128 * 1024;
constexpr uint64_t kMaxSteps = 100'000;

// Not a std::exception, because minja catches those at every level and puts a copy of the source line into each.
struct LimitReached {
  const char* what;
};

// What one rendering may use: names looked up and elements of lists looked up or made.
class Budget {
 public:
  Budget() : stack_(reinterpret_cast<uintptr_t>(__builtin_frame_address(0))) {}

  void spend(uint64_t steps) {
    const auto here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    if ((here > stack_ ? here - stack_ : stack_ - here) > kMaxStackBytes) throw LimitReached{"it nests too deep"};
    if (steps > kMaxSteps - used_) throw LimitReached{"it takes too many steps"};
    used_ += steps;
  }

 private:
  uintptr_t stack_;
  uint64_t used_ = 0;
};

// The outermost variables. Calls of macros and most iterations of loops end up here for the names they use: the place
// to stop a recursion or a loop that does not end.
class GuardedContext : public minja::Context {
 public:
  GuardedContext(minja::Value&& values, const std::shared_ptr<minja::Context>& parent, Budget* budget)
      : minja::Context(std::move(values), parent), budget_(budget) {}

  minja::Value get(const minja::Value& key) override {
    budget_->spend(1);
    return minja::Context::get(key);
  }
  minja::Value& at(const minja::Value& key) override {
    minja::Value& value = minja::Context::at(key);
    budget_->spend(value.is_array() ? 1 + value.size() : 1);
    return value;
  }
  bool contains(const minja::Value& key) override {
    budget_->spend(1);
    return minja::Context::contains(key);
  }
  // A macro is a value of the context that it refers to: without this neither would ever be given back. Takes no
  // memory: it runs while bad_alloc is on its way.
  void clear() { values_ = minja::Value(); }

 private:
  Budget* budget_;
};

// minja's own range() writes past its arguments when there are four, and never ends with step 0.
minja::Value bounded_range(minja::ArgumentsValue& args, Budget* budget) {
  args.expectArgs("range", {1, 3}, {0, 0});
  const bool only_end = args.args.size() == 1;
  const int64_t start = only_end ? 0 : args.args[0].get<int64_t>();
  const int64_t end = args.args[only_end ? 0 : 1].get<int64_t>();
  const int64_t step = args.args.size() == 3 ? args.args[2].get<int64_t>() : 1;
  constexpr auto kMost = static_cast<int64_t>(kMaxSteps);
  for (const int64_t value : {start, end, step}) {
    if (value < -kMost || value > kMost || step == 0) throw LimitReached{"range() beyond its limits"};
  }
  auto values = minja::Value::array();
  for (int64_t i = start; step > 0 ? i < end : i > end; i += step) {
    budget->spend(1);
    values.push_back(minja::Value(i));
  }
  return values;
}

class ParsedTemplate {
 public:
  // Hugging Face's settings (transformers, utils/chat_template_utils.py).
  explicit ParsedTemplate(const ChatTemplate& chat)
      : chat_(chat),
        root_(minja::Parser::parse(std::string(chat.source),
                                   {.trim_blocks = true, .lstrip_blocks = true, .keep_trailing_newline = false})) {}

  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
    auto list = minja::Value::array();
    for (const ChatMessage& message : messages) {
      auto value = minja::Value::object();
      value.set("role", std::string(message.role));
      value.set("content", std::string(message.content));
      list.push_back(value);
    }
    auto values = minja::Value::object();
    values.set("messages", list);
    values.set("add_generation_prompt", add_generation_prompt);
    values.set("bos_token", std::string(chat_.bos_text));
    values.set("eos_token", std::string(chat_.eos_text));
    Budget budget;
    values.set("range",
               minja::Value::callable([&budget](const std::shared_ptr<minja::Context>&, minja::ArgumentsValue& args) {
                 return bounded_range(args, &budget);
               }));
    const auto context = std::make_shared<GuardedContext>(std::move(values), minja::Context::builtins(), &budget);
    struct Clear {
      GuardedContext& context;
      ~Clear() { context.clear(); }
    } clear{*context};
    std::ostringstream out;
    root_->render(out, context);
    if (!out) throw std::bad_alloc();  // which streams keep to themselves
    return out.str();
  }

 private:
  const ChatTemplate& chat_;
  std::shared_ptr<minja::TemplateNode> root_;
};

Status deliver(std::string_view text, std::span<char> out, uint64_t* size) {
  *size = text.size();
  if (text.size() > out.size()) {
    return Status::error(ErrorCode::kPromptTooLong, "the chat template gives %zu bytes of text; there is room for %zu",
                         text.size(), out.size());
  }
  std::memcpy(out.data(), text.data(), text.size());
  return {};
}

// Runs `work`, which may throw, over the parsed template.
template <typename Work>
Status with_template(const ChatTemplate& chat, uint64_t* size, const Work& work) {
  *size = 0;
  if (chat.source.empty()) return Status::error(ErrorCode::kTemplate, "the model has no chat template");
  LETHE_RETURN_IF_ERROR(check_template(chat.source));
  try {
    return work(ParsedTemplate(chat));
  } catch (const LimitReached& limit) {
    return Status::error(ErrorCode::kTemplate, "the chat template was stopped: %s", limit.what);
  } catch (const std::bad_alloc&) {
    return Status::error(ErrorCode::kOutOfMemory, "no memory left to render the chat template");
  } catch (const std::exception& error) {
    const std::string_view what = error.what();
    const auto line = static_cast<int>(std::min<size_t>(what.find('\n'), std::min<size_t>(what.size(), 200)));
    return Status::error(ErrorCode::kTemplate, "the chat template failed: %.*s", line, what.data());
  } catch (...) {
    return Status::error(ErrorCode::kTemplate, "the chat template failed");
  }
}

}  // namespace

Status render_chat(const ChatTemplate& chat, std::span<const ChatMessage> messages, bool add_generation_prompt,
                   std::span<char> out, uint64_t* size) {
  return with_template(chat, size, [&](const ParsedTemplate& parsed) {
    return deliver(parsed.render(messages, add_generation_prompt), out, size);
  });
}

Status first_turn(const ChatTemplate& chat, std::span<const ChatMessage> messages, std::span<char> out,
                  uint64_t* size) {
  return render_chat(chat, messages, true, out, size);
}

Status next_turn(const ChatTemplate& chat, std::span<const ChatMessage> messages, std::span<char> out, uint64_t* size) {
  return with_template(chat, size, [&](const ParsedTemplate& parsed) {
    constexpr std::string_view kAnswer = "stand-in answer";
    std::vector<ChatMessage> history = {{"user", "stand-in question"}};
    const std::string asked = parsed.render(history, true);
    history.push_back({"assistant", kAnswer});
    history.insert(history.end(), messages.begin(), messages.end());
    const std::string continued = parsed.render(history, true);
    if (!continued.starts_with(asked) || !std::string_view(continued).substr(asked.size()).starts_with(kAnswer)) {
      return Status::error(ErrorCode::kTemplate,
                           "the chat template rewrites earlier messages, so a conversation cannot be continued");
    }
    return deliver(std::string_view(continued).substr(asked.size() + kAnswer.size()), out, size);
  });
}

}  // namespace lethe
