// Vectors of floats as wide as the instruction set that this file is compiled for, and the math that the kernels need:
// the logistic function and rounding to bfloat16.
//
// The code uses the compilers' vector extension, so one source serves AVX-512, AVX2, SSE2 and NEON. It uses nothing
// from the standard library: of a header's function the linker could keep, for all callers, the copy that was compiled
// here for wide vectors, and that copy would fail on machines without them.

#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t Integers __attribute__((vector_size(4 * kLanes)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef std::uint8_t Bytes __attribute__((vector_size(kLanes)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef float Pixel __attribute__((vector_size(16)));  // up to four channels

template <class Vector>
inline Vector load(const void* from) {
    Vector value;
    __builtin_memcpy(&value, from, sizeof(Vector));
    return value;
}

template <class Vector>
inline void store(void* to, Vector value) {
    __builtin_memcpy(to, &value, sizeof(Vector));
}

template <class To, class From>
inline To bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "the types must have the same size");
    To other;
    __builtin_memcpy(&other, &value, sizeof(To));
    return other;
}

// Fewer than kLanes pixels at the end of a run go through the same arithmetic in a padded vector, so a pixel's bits do
// not depend on where the run ends.
inline Floats load_some(const float* from, std::int64_t count) {
    if (count >= kLanes) return load<Floats>(from);
    Floats value{};
    for (std::int64_t lane = 0; lane < count; ++lane) value[lane] = from[lane];
    return value;
}

inline void store_some(float* to, Floats value, std::int64_t count) {
    if (count >= kLanes) return store(to, value);
    for (std::int64_t lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

inline Floats all(float value) { return value - Floats{}; }

// Returns the numbers of the lanes: 0, 1, 2, ...
inline Floats counting() {
    Floats numbers;
    for (int lane = 0; lane < kLanes; ++lane) numbers[lane] = static_cast<float>(lane);
    return numbers;
}

// Computes e^x as in Cephes (S. Moshier): x = n ln 2 + r, a polynomial for e^r, n added to the exponent. The error is
// about one unit in the last place. Beyond +-87 the result stays constant, which does not affect the logistic function.
inline Floats exponential(Floats x) {
    x = x < -87.0f ? all(-87.0f) : x;  // a comparison with NaN is false, so NaN stays NaN
    x = x > 87.0f ? all(87.0f) : x;
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const Floats shifted = x * 1.44269504088896341f + shift;
    const Floats n = shifted - shift;
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    const Floats scaled = bits<Floats>(bits<Integers>(y) + (bits<Integers>(shifted) << 23));
    return x == x ? scaled : x;
}

inline Floats logistic(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// Rounds to the nearest bfloat16, ties to even; NaN stays NaN. The CPU's own instruction treats denormal numbers as 0.
inline Halves to_bfloat16(Floats x) {
#if defined(__AVX512BF16__)
    return bits<Halves>(_mm512_cvtneps_pbh(bits<__m512>(x)));
#else
    const Integers raw = bits<Integers>(x);
    const Integers rounded = (raw + 0x7fff + ((raw >> 16) & 1)) >> 16;
    const Integers kept = x == x ? rounded : Integers{} + 0x7fc0;
    return __builtin_convertvector(kept, Halves);
#endif
}

// Elements in the network's dtype: float, or bfloat16 as its 16 bits.
using Bfloat16 = std::uint16_t;

template <class Element>
struct Converted;
template <>
struct Converted<float> {
    static Floats from(Floats x) { return x; }
};
template <>
struct Converted<Bfloat16> {
    static Halves from(Floats x) { return to_bfloat16(x); }
};

// Convert values that already are representable, without rounding.
inline Floats narrowed_as(float, Floats x) { return x; }
inline Halves narrowed_as(Bfloat16, Floats x) { return __builtin_convertvector(bits<Integers>(x) >> 16, Halves); }

inline float to_float(Bfloat16 x) { return bits<float>(static_cast<std::uint32_t>(x) << 16); }
inline float to_float(float x) { return x; }

inline Floats widened(Halves bfloat16) { return bits<Floats>(__builtin_convertvector(bfloat16, Words) << 16); }

inline Floats floats(const float* from) { return load<Floats>(from); }
inline Floats floats(const Bfloat16* from) { return widened(load<Halves>(from)); }

// GCC splits a direct conversion between bytes and words into single lanes; it does not do so by way of halves.
inline Integers widened(Bytes bytes) {
    return bits<Integers>(__builtin_convertvector(__builtin_convertvector(bytes, Halves), Words));
}
inline Bytes narrowed(Integers integers) {
    return __builtin_convertvector(__builtin_convertvector(integers, Halves), Bytes);
}

inline void store_one(float* to, float value) { *to = value; }
inline void store_one(Bfloat16* to, float value) {
    const std::uint32_t raw = bits<std::uint32_t>(value);
    *to = value == value ? static_cast<Bfloat16>((raw + 0x7fff + ((raw >> 16) & 1)) >> 16) : 0x7fc0;
}

}  // namespace
