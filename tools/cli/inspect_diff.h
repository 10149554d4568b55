// lethe inspect --diff: how far the weights of two model files are apart.
#pragma once

#include "runtime/model/model.h"

namespace lethe::cli {

// Prints a row for every tensor that both have, and what only one has. Fails when a tensor's shape differs.
void inspect_diff(const Model& model, const Model& other, bool as_json);

}  // namespace lethe::cli
