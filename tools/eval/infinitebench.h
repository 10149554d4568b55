// InfiniteBench's own scores of a reply, after its src/compute_scores.py. `labels` as the file has them; for tasks with
// options the text of the right one and its letter.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lethe::eval::infinitebench {

using Labels = std::span<const std::string>;

bool first_number(Labels labels, std::string_view reply);      // passkey, number_string
bool retrieved(Labels labels, std::string_view reply);         // kv_retrieval
bool name_of_speaker(Labels labels, std::string_view reply);   // longdialogue_qa_eng
bool letter_of_choice(Labels labels, std::string_view reply);  // longbook_choice_eng
bool letter_of_bug(Labels labels, std::string_view reply);     // code_debug
bool last_number(Labels labels, std::string_view reply);       // code_run
bool found_number(Labels labels, std::string_view reply);      // math_find
double right_prefix(Labels labels, std::string_view reply);    // math_calc

}  // namespace lethe::eval::infinitebench
