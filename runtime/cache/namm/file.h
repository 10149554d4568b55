// NAMM files: the parameters of a NAMM, with all that is needed to use them. A model file may carry one whole.
//
//   offset 0   char[8]  "LETHNAMM"
//          8   u32      version (1)
//          12  u32      network: Network
//          16  u32      hidden
//          20  u32      interval
//          24  u32      1: rectangular retention, 0: ragged
//          28  u32      inputs
//          32  u8[16]   kinds of the inputs, then zeros
//          48  u64      zero
//          56  u64      XXH64 (seed 0) of bytes 0 to 55 and of the parameters
//          64  f32[]    parameters, as parameters.h has them
//
// Little endian.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/cache/namm/parameters.h"

namespace lethe::namm {

inline constexpr size_t kFileHeaderBytes = 64;
inline size_t file_bytes(const Shape& shape) { return kFileHeaderBytes + sizeof(float) * shape.parameter_count(); }

// Views into `file`, which is aligned to 4 bytes and must outlive them. kNotAModel: no NAMM file or another version;
// kCorruptModel: damaged, or of impossible parameters.
Result<Parameters> read_file(std::span<const uint8_t> file);

// The file of checked parameters.  out [file_bytes]
void write_file(const Parameters& parameters, std::span<uint8_t> out);

}  // namespace lethe::namm
