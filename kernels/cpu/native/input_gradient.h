// The input gradient of a convolution that reads few channels; the formula is in ops/stem.py.
//
// Libraries vectorize over the channels that a kernel writes; there are too few of them here. So lanes are neighboring
// columns of a phase, x = s t + q for t = 0, 1, ...: they read neighboring columns of dy and share the weight.
// To allow that, each row of dy is transposed: each word of channels (a float32, or two bfloat16, whose products one
// instruction adds) has its columns side by side. Every thread keeps the few rows that its row of pixels reads. The
// transposition also applies the mask of a rectifier behind the convolution, which saves a pass over the largest tensor
// of a network.

#pragma once

#include "pixels.h"
#include "pooling.h"
#include "threads.h"

namespace {

using cnnvis_fast::InputGradient;
using cnnvis_fast::kWidestFilter;

typedef std::int32_t Word;
constexpr int kColumns = kLanes == 16 ? 7 : 4;  // vectors of columns at a time, as many as the registers hold

template <class Element>
constexpr int kPair = sizeof(Word) / sizeof(Element);

// Adds the products of one word in every lane to the sum.
inline Floats dot(float, Floats sum, Integers weight, Integers x) {
    return sum + bits<Floats>(weight) * bits<Floats>(x);
}
inline Floats dot(Bfloat16, Floats sum, Integers weight, Integers x) {
#if defined(__AVX512BF16__)
    return bits<Floats>(_mm512_dpbf16_ps(bits<__m512>(sum), bits<__m512bh>(weight), bits<__m512bh>(x)));
#else
    const Integers high = Integers{} + static_cast<Word>(0xffff0000);
    sum = sum + bits<Floats>(weight << 16) * bits<Floats>(x << 16);
    return sum + bits<Floats>(weight & high) * bits<Floats>(x & high);
#endif
}

// Loads the word of channels from `channel` on, with zeros where the rectifier's mask is off (null: no rectifier).
template <class Element>
inline Word passed(const Element* from, const uint8_t* mask, int64_t channel) {
    Element kept[kPair<Element>];
    for (int k = 0; k < kPair<Element>; ++k, ++channel)
        kept[k] = !mask || mask[channel / 8] >> channel % 8 & 1 ? from[channel] : Element{};
    return load<Word>(kept);
}

#if defined(__SSE2__)
inline __m128 passed_four(const float* from, const uint8_t* mask, int64_t channel) {
    const __m128 four = load<__m128>(from + channel);
    if (!mask) return four;
    const __m128i places = _mm_set_epi32(8, 4, 2, 1), byte = _mm_set1_epi32(mask[channel / 8] >> channel % 8);
    return _mm_and_ps(four, _mm_castsi128_ps(_mm_cmpeq_epi32(_mm_and_si128(byte, places), places)));
}
inline __m128 passed_four(const Bfloat16* from, const uint8_t* mask, int64_t channel) {
    const __m128 four = load<__m128>(from + channel);
    if (!mask) return four;
    const __m128i places = _mm_set_epi16(128, 64, 32, 16, 8, 4, 2, 1), byte = _mm_set1_epi16(mask[channel / 8]);
    return _mm_and_ps(four, _mm_castsi128_ps(_mm_cmpeq_epi16(_mm_and_si128(byte, places), places)));
}
#endif

#if defined(__AVX512BW__)
inline __m512 passed_line(const float* from, const uint8_t* mask, int64_t channel) {
    const __m512 line = load<__m512>(from + channel);
    return mask ? _mm512_maskz_mov_ps(load<std::uint16_t>(mask + channel / 8), line) : line;
}
inline __m512 passed_line(const Bfloat16* from, const uint8_t* mask, int64_t channel) {
    const __m512 line = load<__m512>(from + channel);
    if (!mask) return line;
    const __mmask32 on = load<std::uint32_t>(mask + channel / 8);
    return _mm512_castsi512_ps(_mm512_maskz_mov_epi16(on, _mm512_castps_si512(line)));
}

// Transposes 16 x 16 words: first within quarters of lines, then the quarters.
inline void transpose(__m512 (&line)[16]) {
    for (int i = 0; i < 16; i += 4) transpose_words(line + i);
    for (int k = 0; k < 4; ++k) {
        __m512 quarters[4] = {line[k], line[4 + k], line[8 + k], line[12 + k]};
        transpose_quarters(quarters);
        for (int i = 0; i < 4; ++i) line[4 * i + k] = quarters[i];
    }
}
#endif

// Transposes a column of dy, from `word` on.
template <class Element>
inline void transpose_column(const InputGradient& r, const Element* dy, const uint8_t* mask, int64_t word, int64_t j,
                        Word* to) {
    const int64_t whole = r.out_channels / kPair<Element>;
    for (; word < whole; ++word) to[word * r.columns + j] = passed(dy, mask, kPair<Element> * word);
    if (whole == r.words) return;
    const int64_t last = r.out_channels - 1;  // half a word
    const bool on = !mask || mask[last / 8] >> last % 8 & 1;
    to[whole * r.columns + j] = on ? static_cast<Word>(dy[last]) : 0;
}

// Transposes one row of dy and applies its mask; the first column goes to `to`.
template <class Element>
void transpose_row(const InputGradient& r, const Element* dy, const uint8_t* mask, Word* to) {
    const int64_t whole = r.out_channels / kPair<Element>, bytes = mask ? (r.out_channels + 7) / 8 : 0;
    int64_t j = 0;
#if defined(__AVX512BW__)
    for (; j + 16 <= r.out_width; j += 16) {
        int64_t word = 0;
        for (; word + 16 <= whole; word += 16) {
            __m512 line[16];
            for (int k = 0; k < 16; ++k)
                line[k] = passed_line(dy + (j + k) * r.out_channels, mask ? mask + (j + k) * bytes : nullptr,
                                      kPair<Element> * word);
            transpose(line);
            for (int k = 0; k < 16; ++k) store(to + (word + k) * r.columns + j, line[k]);
        }
        if (word < r.words)
            for (int k = 0; k < 16; ++k)
                transpose_column(r, dy + (j + k) * r.out_channels, mask ? mask + (j + k) * bytes : nullptr, word, j + k,
                            to);
    }
#endif
#if defined(__SSE2__)
    for (; j + 4 <= r.out_width; j += 4) {
        const Element* const from = dy + j * r.out_channels;
        const uint8_t* const on = mask + j * bytes;
        int64_t word = 0;
        for (; word + 4 <= whole; word += 4) {
            __m128 column[4];
            for (int k = 0; k < 4; ++k)
                column[k] = passed_four(from + k * r.out_channels, mask ? on + k * bytes : nullptr,
                                        kPair<Element> * word);
            _MM_TRANSPOSE4_PS(column[0], column[1], column[2], column[3]);
            for (int k = 0; k < 4; ++k) store(to + (word + k) * r.columns + j, column[k]);
        }
        for (int k = 0; k < 4; ++k)
            transpose_column(r, from + k * r.out_channels, mask ? on + k * bytes : nullptr, word, j + k, to);
    }
#endif
    for (; j < r.out_width; ++j)
        transpose_column(r, dy + j * r.out_channels, mask ? mask + j * bytes : nullptr, 0, j, to);
}

// Computes `Count` vectors of columns of one phase, from `t` on, and writes them into a row of pixels.
template <class Element, int C, int Count>
inline void columns_of(const InputGradient& r, const Word* rows, const Windows& from, int64_t down, int64_t phase,
                       int64_t t, float* pixels) {
    // The positions of a filter's row that reach the phase, and their distances from t in dy.
    int64_t shift[kWidestFilter];
    int position[kWidestFilter], positions = 0;
    for (int m = 0; m < r.kernel[1]; ++m) {
        const int64_t along = phase + r.padding[1] - static_cast<int64_t>(m) * r.dilation[1];
        if (along % r.stride[1]) continue;
        shift[positions] = along / r.stride[1];
        position[positions++] = m;
    }
    Floats sums[Count][C] = {};
    for (int64_t i = from.first; i < from.end; ++i) {
        const int64_t across = down + r.padding[0] - i * r.stride[0];
        if (across % r.dilation[0]) continue;
        const Word* x = rows + i % r.kept * r.words * r.columns + r.left + t;
        const Word* weight = r.weight + across / r.dilation[0] * r.kernel[1] * r.words * C;
        for (int64_t word = 0; word < r.words; ++word, x += r.columns, weight += C)
            for (int k = 0; k < positions; ++k) {
                const Word* one = weight + position[k] * r.words * C;
                for (int n = 0; n < Count; ++n) {
                    const Integers value = load<Integers>(x + shift[k] + n * kLanes);
                    for (int c = 0; c < C; ++c)
                        sums[n][c] = dot(Element{}, sums[n][c], Integers{} + one[c], value);
                }
            }
    }
    for (int n = 0; n < Count; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t x = (t + n * kLanes + lane) * r.stride[1] + phase;
            if (x >= r.width) break;
            for (int c = 0; c < C; ++c) pixels[x * C + c] = sums[n][c][lane];
        }
}

// `fill_row(picture, row, to)` writes a transposed row of dy.
template <class Element, int C, class FillRow>
void input_gradient_as(const InputGradient& r, const FillRow& fill_row) {
    const int64_t bands = r.batch % r.threads ? r.threads : 1, per_row = r.width * C;
    const int64_t size = r.kept * r.words * r.columns;
#pragma omp parallel for schedule(static) num_threads(r.threads)
    for (int64_t task = 0; task < r.batch * bands; ++task) {
        Word* rows = r.scratch + thread_number() * scratch_words(r);
        float* pixels = reinterpret_cast<float*>(rows + size);
        const int64_t picture = task / bands, band = task % bands;
        int64_t filled = 0;  // rows of dy before this one are in scratch or not needed
        for (int64_t down = r.height * band / bands; down < r.height * (band + 1) / bands; ++down) {
            const Windows from(down, r.out_height, r.kernel[0], r.stride[0], r.padding[0], r.dilation[0]);
            for (filled = filled < from.first ? from.first : filled; filled < from.end; ++filled)
                fill_row(picture, filled, rows + filled % r.kept * r.words * r.columns + r.left);
            for (int64_t phase = 0; phase < r.stride[1]; ++phase) {
                int64_t t = 0;
                const int64_t end = (r.width - phase + r.stride[1] - 1) / r.stride[1];
                for (; end - t > (kColumns - 1) * kLanes; t += kColumns * kLanes)
                    columns_of<Element, C, kColumns>(r, rows, from, down, phase, t, pixels);
                for (; end - t > kLanes; t += 2 * kLanes)
                    columns_of<Element, C, 2>(r, rows, from, down, phase, t, pixels);
                if (t < end) columns_of<Element, C, 1>(r, rows, from, down, phase, t, pixels);
            }
            Element* to = static_cast<Element*>(r.dx) + (picture * r.height + down) * per_row;
            int64_t k = 0;
            for (; k + kLanes <= per_row; k += kLanes)
                store(to + k, Converted<Element>::from(load<Floats>(pixels + k)));
            for (; k < per_row; ++k) store_one(to + k, pixels[k]);
        }
    }
}

template <class Element, class FillRow>
void input_gradient_by(const InputGradient& r, const FillRow& fill_row) {
    switch (r.channels) {
        case 1: return input_gradient_as<Element, 1>(r, fill_row);
        case 2: return input_gradient_as<Element, 2>(r, fill_row);
        case 3: return input_gradient_as<Element, 3>(r, fill_row);
        case 4: return input_gradient_as<Element, 4>(r, fill_row);
    }
}

template <class Element>
void input_gradient_of(const InputGradient& r) {
    const Element* const dy = static_cast<const Element*>(r.dy);
    const int64_t bytes = (r.out_channels + 7) / 8;
    input_gradient_by<Element>(r, [&](int64_t picture, int64_t row, Word* to) {
        const int64_t first = (picture * r.out_height + row) * r.out_width;
        transpose_row(r, dy + first * r.out_channels, r.mask ? r.mask + first * bytes : nullptr, to);
    });
}

void input_gradient(const InputGradient& r) {
    r.bfloat16 ? input_gradient_of<Bfloat16>(r) : input_gradient_of<float>(r);
}

}  // namespace
