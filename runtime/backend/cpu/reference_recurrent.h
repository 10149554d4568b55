// The plain definitions of the kernels of recurrent heads (kernels.h), for reference_kernels().
#pragma once

#include "runtime/backend/cpu/recurrent_kernels.h"

namespace lethe::cpu::reference {

void recur(const RecurArgs& args, uint32_t head_begin, uint32_t head_end);
void absorb(const RecurArgs& args, uint32_t head_begin, uint32_t head_end);
void read_state(const RecurArgs& args, uint32_t head_begin, uint32_t head_end);
void scan(const ScanArgs& args, uint32_t head_begin, uint32_t head_end);
void convolve(const ConvArgs& args, uint32_t channel_begin, uint32_t channel_end);

}  // namespace lethe::cpu::reference
