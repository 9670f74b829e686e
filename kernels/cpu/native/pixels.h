// Converts between pixels with their channels side by side and planes of channels, kLanes pixels at a time.
//
// The intermediate form is pixels of four floats, one vector for all channels of a pixel. Three channels, which nearly
// all networks read, take a few permutations with AVX-512; all other cases are left to the compiler.

#pragma once

#include "vectors.h"

namespace {

constexpr int kFour = 4;  // floats in a pixel

#if defined(__AVX512F__)

// The positions of the channels of contiguous three-channel pixels within pixels of four floats: from the `first`-th
// channel on, relative to `less`.
template <class Index>
struct Threes {
    alignas(64) Index at[64 / sizeof(Index)];

    constexpr Threes(int first, int less) : at() {
        for (int k = 0; k < static_cast<int>(64 / sizeof(Index)); ++k)
            at[k] = static_cast<Index>((first + k) / 3 * kFour + (first + k) % 3 - less);
    }
};

inline __m512i places(const void* table) { return _mm512_load_si512(table); }

inline void write_threes(const float* pixels, float* to) {
    static constexpr Threes<std::int32_t> first(0, 0), second(16, 16), third(32, 32);
    __m512 line[kFour];
    for (int c = 0; c < kFour; ++c) line[c] = _mm512_loadu_ps(pixels + c * kLanes);
    _mm512_storeu_ps(to, _mm512_permutex2var_ps(line[0], places(first.at), line[1]));
    _mm512_storeu_ps(to + 16, _mm512_permutex2var_ps(line[1], places(second.at), line[2]));
    _mm512_storeu_ps(to + 32, _mm512_permutex2var_ps(line[2], places(third.at), line[3]));
}

inline void write_threes(const float* pixels, Bfloat16* to) {
    static constexpr Threes<std::int16_t> first(0, 0), second(32, 32);
    Halves narrow[kFour];
    for (int c = 0; c < kFour; ++c) narrow[c] = to_bfloat16(load<Floats>(pixels + c * kLanes));
    const __m512i low = load<__m512i>(narrow), high = load<__m512i>(narrow + 2);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(low, places(first.at), high));
    const __m512i last = _mm512_permutexvar_epi16(places(second.at), high);
    store(to + 32, _mm512_castsi512_si256(last));
}

// Loads `given` of the 12 contiguous values of four pixels and spreads them to four floats per pixel.
inline __m512 read_threes(const float* from, int given) {
    const __m512i to = _mm512_setr_epi32(0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11, 0);
    const __m512 dense = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << given) - 1), from);
    return _mm512_maskz_permutexvar_ps(0x7777, to, dense);
}

inline __m512 read_threes(const Bfloat16* from, int given) {
    const __m256i dense = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1 << given) - 1), from);
    const __m512i to = _mm512_setr_epi32(0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11, 0);
    const __m512i words = _mm512_cvtepu16_epi32(dense);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_maskz_permutexvar_epi32(0x7777, to, words), 16));
}

// Transposes the 4 x 4 quarters of four lines.
inline void transpose_quarters(__m512* line) {
    const __m512 even = _mm512_shuffle_f32x4(line[0], line[1], 0x88);
    const __m512 odd = _mm512_shuffle_f32x4(line[0], line[1], 0xdd);
    const __m512 even_below = _mm512_shuffle_f32x4(line[2], line[3], 0x88);
    const __m512 odd_below = _mm512_shuffle_f32x4(line[2], line[3], 0xdd);
    line[0] = _mm512_shuffle_f32x4(even, even_below, 0x88);
    line[1] = _mm512_shuffle_f32x4(odd, odd_below, 0x88);
    line[2] = _mm512_shuffle_f32x4(even, even_below, 0xdd);
    line[3] = _mm512_shuffle_f32x4(odd, odd_below, 0xdd);
}

// Transposes the 4 x 4 words within the quarters of four lines.
inline void transpose_words(__m512* line) {
    const __m512d low = _mm512_castps_pd(_mm512_unpacklo_ps(line[0], line[1]));
    const __m512d high = _mm512_castps_pd(_mm512_unpackhi_ps(line[0], line[1]));
    const __m512d low_below = _mm512_castps_pd(_mm512_unpacklo_ps(line[2], line[3]));
    const __m512d high_below = _mm512_castps_pd(_mm512_unpackhi_ps(line[2], line[3]));
    line[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, low_below));
    line[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, low_below));
    line[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, high_below));
    line[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, high_below));
}

#endif

// Converts planes to pixels.
inline void to_pixels(const Floats (&planes)[kFour], float* pixels) {
#if defined(__AVX512F__)
    __m512 line[kFour];
    for (int c = 0; c < kFour; ++c) line[c] = bits<__m512>(planes[c]);
    transpose_words(line);
    transpose_quarters(line);
    for (int c = 0; c < kFour; ++c) _mm512_storeu_ps(pixels + c * kLanes, line[c]);
#else
    for (int lane = 0; lane < kLanes; ++lane)
        for (int c = 0; c < kFour; ++c) pixels[lane * kFour + c] = planes[c][lane];
#endif
}

// Converts pixels to planes.
inline void to_planes(const float* pixels, Floats (&planes)[kFour]) {
#if defined(__AVX512F__)
    __m512 line[kFour];
    for (int c = 0; c < kFour; ++c) line[c] = _mm512_loadu_ps(pixels + c * kLanes);
    transpose_quarters(line);
    transpose_words(line);
    for (int c = 0; c < kFour; ++c) planes[c] = bits<Floats>(line[c]);
#else
    for (int lane = 0; lane < kLanes; ++lane)
        for (int c = 0; c < kFour; ++c) planes[c][lane] = pixels[lane * kFour + c];
#endif
}

// Writes the first `count` of kLanes pixels, C channels of each.
template <int C, class Element>
inline void write_pixels(const float* pixels, std::int64_t count, Element* to) {
#if defined(__AVX512F__)
    if (C == 3 && count >= kLanes) return write_threes(pixels, to);
#endif
    Element narrow[kFour * kLanes], dense[kFour * kLanes];
    for (int c = 0; c < kFour; ++c)
        store(narrow + c * kLanes, Converted<Element>::from(load<Floats>(pixels + c * kLanes)));
    for (int lane = 0; lane < kLanes; ++lane)
        for (int c = 0; c < C; ++c) dense[lane * C + c] = narrow[lane * kFour + c];
    if (count >= kLanes)  // a length known at compile time
        __builtin_memcpy(to, dense, sizeof(Element) * C * kLanes);
    else
        __builtin_memcpy(to, dense, sizeof(Element) * C * static_cast<std::size_t>(count));
}

// Reads the first `count` of kLanes pixels; the other pixels and the channels beyond C become zero.
template <int C, class Element>
inline void read_pixels(const Element* from, std::int64_t count, float* pixels) {
#if defined(__AVX512F__)
    if (C == 3) {
        for (int line = 0; line < kFour; ++line) {
            const std::int64_t left = 3 * count - 12 * line;
            const int given = left < 0 ? 0 : left < 12 ? static_cast<int>(left) : 12;
            _mm512_storeu_ps(pixels + line * kLanes, read_threes(from + 12 * line, given));
        }
        return;
    }
#endif
    Element dense[kFour * kLanes] = {};
    if (count >= kLanes)
        __builtin_memcpy(dense, from, sizeof(Element) * C * kLanes);
    else
        __builtin_memcpy(dense, from, sizeof(Element) * C * static_cast<std::size_t>(count));
    for (int lane = 0; lane < kLanes; ++lane)
        for (int c = 0; c < kFour; ++c) pixels[lane * kFour + c] = c < C ? to_float(dense[lane * C + c]) : 0.0f;
}

}  // namespace
