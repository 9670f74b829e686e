// ascend_; the formula is in ops/ascend.py.
//
// One picture fits in a core's cache, so each thread takes whole pictures when there are enough of them: it computes
// the statistics of dp, then updates p, m and v in one pass. Otherwise the threads share the chunks of each picture.
// Either way a sum adds the same chunks in the same order, so the bits do not depend on the number of threads.

#pragma once

#include "kernels.h"
#include "sums.h"
#include "vectors.h"

namespace {

using cnnvis_fast::Ascend;
using cnnvis_fast::kChunk;
using cnnvis_fast::SecondMoment;
using std::int64_t;

struct PictureAscent {
    const Ascend& a;
    int64_t index;
    float *p, *m, *v;
    const float* dp;
    double *energies, *squares, *band_sums, *band_counts;
    // Set by combine(); the update of every element needs them.
    bool finite = false;
    float step = 0, debias = 0, gain = 0;

    PictureAscent(const Ascend& arguments, int64_t picture) : a(arguments), index(picture) {
        const int64_t moments = a.second_moment == SecondMoment::coefficient ? a.size
                                : a.second_moment == SecondMoment::band      ? a.bands
                                                                             : 1;
        p = a.p + picture * a.size;
        m = a.m + picture * a.size;
        v = a.v ? a.v + picture * moments : nullptr;
        dp = a.dp + picture * a.size;
        energies = a.scratch + picture * ascend_doubles(a);
        squares = energies + chunks(a.size);
        band_sums = squares + chunks(a.size);
        band_counts = band_sums + a.bands;
    }

    int64_t length(int64_t chunk) const { return chunk_length(a.size, chunk * kChunk); }

    float gradient(int64_t i) const { return dp[i] - static_cast<float>(a.weight_decay) * p[i]; }

    // Computes a chunk's sums of squares of dp and of the gradient with weight decay.
    void measure(int64_t chunk) const {
        const int64_t start = chunk * kChunk, count = length(chunk);
        energies[chunk] = squares[chunk] = sum_of_squares(dp + start, count);
        if (a.weight_decay == 0) return;
        float decayed[kChunk];
        for (int64_t i = 0; i < count; ++i) decayed[i] = gradient(start + i);
        squares[chunk] = sum_of_squares(decayed, count);
    }

    // Computes the picture's factors from its sums. Writes its energy and its second moments, except those per
    // coefficient.
    void combine() {
        double energy = 0, square = 0;
        for (int64_t chunk = 0; chunk < chunks(a.size); ++chunk) {
            energy += energies[chunk];
            square += squares[chunk];
        }
        const float mean = static_cast<float>(square / static_cast<double>(a.size));
        a.energy[index] = static_cast<float>(energy / static_cast<double>(a.size));
        finite = __builtin_isfinite(a.energy[index]);
        if (!finite) return;
        const float* schedule = a.schedule + 3 * index;
        const float epsilon = static_cast<float>(a.epsilon);
        step = schedule[0] * schedule[1];
        debias = schedule[2];
        if (a.second_moment == SecondMoment::none) {
            step = schedule[0];
            gain = 1 / (__builtin_sqrtf(mean) + epsilon);
        } else if (a.second_moment == SecondMoment::image) {
            *v = blend(a.beta2, *v, mean);
            gain = step / (__builtin_sqrtf(*v * debias) + epsilon);
        } else if (a.second_moment == SecondMoment::band) {
            update_bands(epsilon);
        }
    }

    // Neighboring coefficients mostly share a band, so the table of sums is filled one coefficient at a time.
    void update_bands(float epsilon) {
        for (int64_t b = 0; b < a.bands; ++b) band_sums[b] = band_counts[b] = 0;
        for (int64_t i = 0; i < a.size; ++i) {
            const double g = gradient(i);
            band_sums[a.band[i]] += g * g;
            band_counts[a.band[i]] += 1;
        }
        for (int64_t b = 0; b < a.bands; ++b) {
            const double count = band_counts[b] > 0 ? band_counts[b] : 1;
            v[b] = blend(a.beta2, v[b], static_cast<float>(band_sums[b] / count));
            band_sums[b] = step / (__builtin_sqrtf(v[b] * debias) + epsilon);  // now holds the band's gain
        }
    }

    static float blend(double beta, float old, float fresh) {
        return static_cast<float>(beta) * old + static_cast<float>(1 - beta) * fresh;
    }

    template <SecondMoment kind>
    void update(int64_t chunk) const {
        const int64_t start = chunk * kChunk, end = start + length(chunk);
        const float beta1 = static_cast<float>(a.beta1), rest1 = static_cast<float>(1 - a.beta1);
        const float beta2 = static_cast<float>(a.beta2), rest2 = static_cast<float>(1 - a.beta2);
        const float epsilon = static_cast<float>(a.epsilon), decay = static_cast<float>(a.weight_decay);
        const float pace = step, correction = debias, factor = gain;
        const int64_t* band = a.band;
        const double* gains = band_sums;
        float *__restrict state = p, *__restrict first = m, *__restrict second = v;
        const float* __restrict from = dp;
        for (int64_t i = start; i < end; ++i) {
            const float g = from[i] - decay * state[i];
            if constexpr (kind == SecondMoment::none) {
                first[i] = beta1 * first[i] + g * factor;
                state[i] += pace * first[i];
            } else {
                first[i] = beta1 * first[i] + rest1 * g;
            }
            if constexpr (kind == SecondMoment::image) state[i] += first[i] * factor;
            if constexpr (kind == SecondMoment::band) state[i] += first[i] * static_cast<float>(gains[band[i]]);
            if constexpr (kind == SecondMoment::coefficient) {
                second[i] = beta2 * second[i] + rest2 * (g * g);
                state[i] += pace * first[i] / (__builtin_sqrtf(second[i] * correction) + epsilon);
            }
        }
    }
};

template <SecondMoment kind>
void ascend(const Ascend& a) {
    const int64_t pieces = chunks(a.size);
    if (a.batch % a.threads == 0 || a.batch > 4 * a.threads) {
#pragma omp parallel for schedule(static) num_threads(a.threads)
        for (int64_t index = 0; index < a.batch; ++index) {
            PictureAscent picture(a, index);
            for (int64_t chunk = 0; chunk < pieces; ++chunk) picture.measure(chunk);
            picture.combine();
            for (int64_t chunk = 0; picture.finite && chunk < pieces; ++chunk) picture.update<kind>(chunk);
        }
        return;
    }
    for (int64_t index = 0; index < a.batch; ++index) {
        PictureAscent picture(a, index);
#pragma omp parallel num_threads(a.threads)
        {
#pragma omp for schedule(static)
            for (int64_t chunk = 0; chunk < pieces; ++chunk) picture.measure(chunk);
#pragma omp single
            picture.combine();
            if (picture.finite) {
#pragma omp for schedule(static)
                for (int64_t chunk = 0; chunk < pieces; ++chunk) picture.update<kind>(chunk);
            }
        }
    }
}

void ascend_any(const Ascend& a) {
    switch (a.second_moment) {
        case SecondMoment::none: return ascend<SecondMoment::none>(a);
        case SecondMoment::image: return ascend<SecondMoment::image>(a);
        case SecondMoment::band: return ascend<SecondMoment::band>(a);
        case SecondMoment::coefficient: return ascend<SecondMoment::coefficient>(a);
    }
}

}  // namespace
