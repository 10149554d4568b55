#include "runtime/text/chat_template.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <vector>

#include "runtime/text/template_check.h"

namespace lethe {
namespace {

using Messages = std::vector<ChatMessage>;

struct Rendered {
  Status status;
  std::string text;
};

template <typename Call>
Rendered with_room(uint64_t room, const Call& call) {
  std::string out(room, '\0');
  uint64_t size = 0;
  const Status status = call(std::span<char>(out), &size);
  out.resize(status.ok() ? size : 0);
  return {status, out};
}
Rendered render(std::string_view source, const Messages& messages, bool prompt = true) {
  return with_room(4096, [&](std::span<char> out, uint64_t* size) {
    return render_chat({source, "<s>", "</s>"}, messages, prompt, out, size);
  });
}
Rendered next(std::string_view source, const Messages& messages) {
  return with_room(4096, [&](std::span<char> out, uint64_t* size) {
    return next_turn({source, "<s>", "</s>"}, messages, out, size);
  });
}

// SmolLM2's (ChatML with a default system message).
constexpr std::string_view kChatMl =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are "
    "a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";

// In the manner of Gemma: roles must alternate, "model" for the assistant, trimmed contents, a beginning-of-text token.
constexpr std::string_view kGemma = R"({{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set prefix = messages[0]['content'] + '

' -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for message in rest -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '
' + (prefix if loop.first else "") }}
    {{- message['content'] | trim }}{{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
)";

// In the manner of Qwen3: thoughts are taken out of earlier answers; namespaces, a reversed slice, split.
constexpr std::string_view kQwen = R"({%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not(message.content.startswith('<tool>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{#- Each message in turn. #}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == "assistant" and '</think>' in content and loop.index0 < ns.last %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>' ~ message.role ~ '\n' ~ content ~ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}
)";

TEST_CASE("ChatML") {
  CHECK(render(kChatMl, {{"user", "Hi"}}).text ==
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  CHECK(render(kChatMl, {{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Yes?"}}, false).text ==
        "<|im_start|>system\nBe "
        "brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n");
  CHECK(next(kChatMl, {{"user", "More \xF0\x9F\x98\x80"}}).text ==
        "<|im_end|>\n<|im_start|>user\nMore \xF0\x9F\x98\x80<|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("Gemma's manner") {
  CHECK(render(kGemma, {{"system", "S"}, {"user", "  Hi  "}}).text ==
        "<s><start_of_turn>user\nS\n\nHi<end_of_turn>\n<start_of_turn>model\n");
  CHECK(next(kGemma, {{"user", "B"}}).text ==
        "<end_of_turn>\n<start_of_turn>user\nB<end_of_turn>\n<start_of_turn>model\n");
  const Rendered refused = next(kGemma, {{"assistant", "B"}});
  CHECK(refused.status.code() == ErrorCode::kTemplate);
  CHECK(std::string(refused.status.message()).find("Conversation roles must alternate") != std::string::npos);
}

TEST_CASE("Qwen's manner") {
  CHECK(render(kQwen, {{"user", "a"}, {"assistant", "<think>\nt\n</think>\n\nb"}, {"user", "c"}}).text ==
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n");
  CHECK(next(kQwen, {{"user", "c"}}).text == "<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("macros") {
  CHECK(render("{% macro turn(m, last=false) %}[{{ m.role }}: {{ m.content }}{{ '.' if last }}]{% endmacro %}"
               "{% for m in messages %}{{ turn(m, last=loop.last) }}{% endfor %}",
               {{"user", "a"}, {"assistant", "b"}})
            .text == "[user: a][assistant: b.]");
}

// What an endless conversation feeds is what rendering all of it would give.
TEST_CASE("turns add up to the whole conversation") {
  for (const std::string_view source : {kChatMl, kGemma, kQwen}) {
    Messages all = {{"user", "one"}};
    std::string fed;
    fed = with_room(4096, [&](std::span<char> out, uint64_t* size) {
            return first_turn({source, "<s>", "</s>"}, all, out, size);
          }).text;
    for (const std::string_view question : {"two", "three", "four"}) {
      all.push_back({"assistant", "an answer"});
      all.push_back({"user", question});
      fed += "an answer" + next(source, {{"user", question}}).text;
      CHECK(fed == render(source, all).text);
    }
  }
}

TEST_CASE("templates that rewrite their history cannot go on") {
  for (const std::string_view source :
       {"{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{% for m in messages[::-1] %}{{ m.content }}{% endfor %}", "always the same"}) {
    CHECK(render(source, {{"user", "x"}}).status.ok());
    CHECK(next(source, {{"user", "x"}}).status.code() == ErrorCode::kTemplate);
  }
}

TEST_CASE("a text that does not fit says how much room it needs") {
  uint64_t size = 0;
  std::string out(63, '#');
  Status status = next_turn({kChatMl, "", ""}, Messages{{"user", "Hi!!"}}, out, &size);
  CHECK(status.code() == ErrorCode::kPromptTooLong);
  CHECK(std::string(status.message()) == "the chat template gives 65 bytes of text; there is room for 63");
  REQUIRE(size == 65);
  CHECK(out == std::string(63, '#'));
  out.resize(size);
  CHECK(next_turn({kChatMl, "", ""}, Messages{{"user", "Hi!!"}}, out, &size).ok());
}

TEST_CASE("damaged templates are errors with a sentence") {
  for (const std::string_view source :
       {"", "{{ 1", "{% if 1 %}", "{% nonsense %}", "{{ messages.nothing.at.all }}", "{{ 1 + }}", "{% endfor %}",
        "{{ undefined_function() }}", "{{ 'a' | no_such_filter }}", "{# never closed", "{% for x in 3 %}{% endfor %}",
        "{{ messages[17].content }}", "{{ raise_exception('no') }}", "{{ '\xff' | tojson }}"}) {
    CAPTURE(source);
    const Rendered result = render(source, {{"user", "x"}});
    CHECK(result.status.code() == ErrorCode::kTemplate);
    CHECK(std::string_view(result.status.message()).size() > 20);
  }
}

std::string repeated(std::string_view text, int times) {
  std::string out;
  while (times-- > 0) out += text;
  return out;
}

TEST_CASE("hostile templates neither crash nor hang") {
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<std::string> sources = {
      "{{ 1 % 0 }}",
      "{{ 1 // (1 - 1) }}",
      "{{ 7 / x }}",
      "{{ 1 % 0.5 }}",
      "{{ 'a' * 1000000000 }}",
      "{{ 'abc'[9:0:-1] }}",
      "{{ 'abc'[9:0:x] }}",
      "{{ 'a'.split('') }}",
      "{{ 'a'.split(x) }}",
      "{{ range(1, 2, 3, 4) }}",
      "{{ range(5, 1, 0) }}",
      "{{ range(1000000000) }}",
      "{% for a in range(9, 0, -0) %}{% endfor %}",
      "{% set l = [] %}{{ l.append(l) }}{{ l }}",
      "{% set ns = namespace(a=1) %}{% set ns.a = ns %}{{ ns.a }}",
      "{% set d = {} %}{% set d.x = d %}{{ d }}",
      "{% set f = [namespace(a=1)] %}{{ f }}",
      "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
      "{% set ns = namespace() %}{% for x in messages %}{% set ns.l = loop %}{% endfor %}{{ ns.l.cycle(1) }}",
      "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
      "{% call messages() %}{% endcall %}",
      "{% for x in messages %}{% macro a() %}{% endmacro %}{% endfor %}",
      "{% for a in range(999) %}{% for b in range(999) %}{% for c in range(999) %}{{ c }}{% endfor %}{% endfor %}{% "
      "endfor %}",
      "{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}",
      "{{ " + repeated("[", 5000) + " }}",
      "{{ " + repeated("not ", 5000) + "x }}",
      "{{ 1" + repeated(" + 1", 5000) + " }}",
      "{{ 'a'" + repeated(" ~ 'a'", 5000) + " }}",
      repeated("{% if 1 %}", 3000) + repeated("{% endif %}", 1),
      repeated("{% set a %}", 2000),
      repeated("{% if 1 %}{% set a %}{% endset %}", 900),
      "{# " + repeated("x", 30000) + " #}",
      "{{ " + repeated("x", 30000) + " }}",
      "{{ " + repeated(" ", 30000) + " }}",
      "{{ " + repeated("9", 30000) + " }}",
      repeated("x", 100000),
      std::string("{{ 'a\0b' }}", 12)};
  for (const std::string& source : sources) {
    CAPTURE(source.substr(0, 100));
    const Rendered result = render(source, {{"user", "x"}});
    CHECK(result.status.code() == ErrorCode::kTemplate);
  }
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
}

TEST_CASE("the largest templates render in no time") {
  const auto begin = std::chrono::steady_clock::now();
  CHECK(render(repeated("{{ x }}", 4600), {{"user", "x"}}).status.ok());
  CHECK(render(repeated("{{ messages if x else x }}", 1200), {{"user", "x"}}).status.ok());
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
}

TEST_CASE("the check passes what chat models use and names what it refuses") {
  for (const std::string_view source :
       {kChatMl, kGemma, kQwen, std::string_view("{{ x[1:] }}{{ x[:-1] }}{{ x[1:2] }}{{ {'a': 1, 'b': {'c': 2}} }}"),
        std::string_view("{{ loop.index0 % 2 }}{{ 7 // 2 }}"), std::string_view("{{ 'a % b * {{' }} 100 % {"),
        std::string_view("{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + [1] %}{% set ns = namespace() %}")}) {
    CAPTURE(source);
    const Status status = check_template(source);
    INFO(status.message());
    CHECK(status.ok());
  }
  CHECK(std::string(check_template("abc{{ x % y }}").message()) ==
        "the chat template is refused at byte 8: division by what is not a number above 0");
}

}  // namespace
}  // namespace lethe
