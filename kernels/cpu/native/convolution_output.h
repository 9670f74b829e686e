// The epilogue of a convolution: adds the bias, rectifies, rounds and writes the mask, one vector of output channels at
// a time.

#pragma once

#include "vectors.h"

namespace {

using std::int64_t;
using std::uint8_t;

// Stores a vector and returns the stored values. Whole cache lines of bfloat16 bypass the caches: a layer's maps are
// larger than these, and a line that is overwritten as a whole need not be read first. Each thread ends with
// `flush_stores`, so that the other threads see these stores after the parallel loop.
inline Floats stored(float* to, Floats value, bool) {
    store(to, value);
    return value;
}
inline Floats stored(Bfloat16* to, Floats value, [[maybe_unused]] bool whole_lines) {
    const Halves kept = to_bfloat16(value);
#if defined(__AVX512F__)
    if (whole_lines)
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to), bits<__m256i>(kept));
    else
#endif
        store(to, kept);
    return widened(kept);
}

inline void flush_stores() {
#if defined(__AVX512F__)
    _mm_sfence();
#endif
}

// Rounds to bfloat16 and back, as a store and a load would.
inline Floats rounded(Floats x) { return widened(to_bfloat16(x)); }

inline Floats rectified(Floats x) { return x <= 0.0f ? Floats{} : x; }  // NaN stays NaN

// Returns one bit per lane: whether a rectifier is on there. It is on for NaN, too.
inline unsigned passing(Floats x) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(bits<__m512>(x), _mm512_setzero_ps(), _CMP_NLE_UQ);
#elif defined(__AVX2__)
    return ~static_cast<unsigned>(_mm256_movemask_ps(bits<__m256>(x <= 0.0f)));
#else
    unsigned found = 0;
    for (int lane = 0; lane < kLanes; ++lane) found |= (x[lane] <= 0.0f ? 0u : 1u) << lane;
    return found;
#endif
}

// Writes into a pixel's mask at `mask` which of the channels from `channel` on are on.
inline void write_mask(Floats value, int64_t channel, uint8_t* mask) {
    const unsigned on = passing(value);
    uint8_t* const byte = mask + channel / 8;
    if constexpr (kLanes == 16) {
        store(byte, static_cast<std::uint16_t>(on));
    } else if constexpr (kLanes == 8) {
        *byte = static_cast<uint8_t>(on);
    } else {  // the lower half of a byte comes first
        *byte = static_cast<uint8_t>(channel % 8 ? *byte | (on & 15) << 4 : on & 15);
    }
}

// Loads the channels from `channel` on, which lie at `from`, with zeros where the pixel's mask is off.
inline Floats masked(const Bfloat16* from, const uint8_t* mask, int64_t channel) {
#if defined(__AVX512BW__)
    const __mmask16 on = load<std::uint16_t>(mask + channel / 8);
    return bits<Floats>(_mm512_slli_epi32(_mm512_maskz_cvtepu16_epi32(on, load<__m256i>(from)), 16));
#else
    Integers on;
    for (int lane = 0; lane < kLanes; ++lane)
        on[lane] = -(mask[(channel + lane) / 8] >> (channel + lane) % 8 & 1);
    return bits<Floats>(bits<Integers>(floats(from)) & on);
#endif
}

// Finishes the output channels from `channel` on of one pixel, which has `channels` in all. The pixel's channels begin
// at `y`, a multiple of `channels` from the tensor's start; its mask begins at `mask` (null: no rectifier).
template <class Element>
inline void finish(Floats sum, const float* bias, int64_t channel, int64_t channels, Element* y, uint8_t* mask) {
    const bool whole_lines = channels % 32 == 0;
    if (bias) sum = sum + load<Floats>(bias + channel);
    if (mask)
        write_mask(stored(y + channel, rectified(sum), whole_lines), channel, mask);
    else
        stored(y + channel, sum, whole_lines);
}

}  // namespace
