// What the instruction sets share: the kernels' arguments and the type of each set's table of functions.
//
// Shapes are those of kernels/ops. Tensors are float32 unless noted otherwise; the caller has checked them.

#pragma once

#include <cstdint>

namespace cnnvis_fast {

constexpr int kWidest = 16;       // lanes of the widest vectors
constexpr int kWidestFilter = 32;  // columns of a filter that InputGradient allows
constexpr int kMostChannels = 4;  // a pixel's channels fill one 16-byte vector

// Work is cut into tasks (picture, band of rows) so that every thread gets the same number. A pixel's result never
// depends on its band, so the bits do not depend on the number of threads.
struct Pictures {
    std::int64_t batch, channels, height, width;
    const std::int64_t* jitter;  // [B, 2], or null
    const float* affine;         // [B, 2, 3], or null; both null: no warp
    int threads;
    float* scratch;  // threads x scratch_floats(), for affine warps
};

inline std::int64_t scratch_floats(const Pictures& pictures) {
    return 4 * (pictures.width * pictures.height + kWidest);  // vectors may reach beyond the last pixel
}

struct Render {
    Pictures pictures;
    const float *z, *color, *mean, *std;
    void* x;        // channels last
    bool bfloat16;  // dtype of x; else float32
};

struct RenderBackward {
    Pictures pictures;
    const void* g;  // channels last
    bool bfloat16;  // dtype of g; else float32
    const float *z, *color, *std;
    float* dz;
};

enum class SecondMoment { none, image, band, coefficient };

struct Ascend {
    std::int64_t batch, size, bands;
    SecondMoment second_moment;
    float *p, *m, *v;
    const float *dp, *schedule;
    const std::int64_t* band;
    double beta1, beta2, epsilon, weight_decay;
    float* energy;
    int threads;
    double* scratch;  // batch x ascend_doubles()
};

constexpr std::int64_t kChunk = 4096;  // elements that are summed or updated at a time

inline std::int64_t chunks(std::int64_t size) { return (size + kChunk - 1) / kChunk; }

inline std::int64_t chunk_length(std::int64_t size, std::int64_t start) {
    return size - start < kChunk ? size - start : kChunk;
}

// Per picture: two partial sums for each chunk, and the sum and count of each band.
inline std::int64_t ascend_doubles(const Ascend& a) { return 2 * chunks(a.size) + 2 * a.bands; }

struct Dot {
    std::int64_t batch, size;
    const void *h, *maps;
    bool bfloat16;  // dtype of both; else float32
    float* sums;
    int threads;
    double* scratch;  // batch x chunks(size)
};

struct Restrain {
    std::int64_t batch, channels, plane;
    const float *dz, *z, *color;
    float* out;
    float strength, limit;
    int threads;
    double* scratch;  // batch x chunks(channels x plane)
};

// A slice of the channels: a row consists of the channels of all parts in order. Strides are from row to row, in
// elements. Each part's mask begins at a new byte.
struct Part {
    std::int64_t channels, stride;
    const void* x;  // in the backward pass dx, which is written
};

struct Rectify {
    std::int64_t rows;
    int parts;
    const Part* part;
    const void* other;  // added first, or null
    std::int64_t other_stride;
    void* y;  // null: write the mask only
    std::uint8_t* mask;
    bool bfloat16;  // dtype of all tensors, here and below; else float32
    int threads;
};

struct RectifyBackward {
    std::int64_t rows;
    int parts;
    const Part* part;
    const void* g;
    std::int64_t g_stride;
    const void* other;  // a second gradient, or null
    std::int64_t other_stride;
    const std::uint8_t* mask;
    bool bfloat16;
    int threads;
};

inline std::int64_t channels(const Part* part, int parts) {
    std::int64_t sum = 0;
    for (int k = 0; k < parts; ++k) sum += part[k].channels;
    return sum;
}

inline std::int64_t mask_bytes(const Part* part, int parts) {
    std::int64_t sum = 0;
    for (int k = 0; k < parts; ++k) sum += (part[k].channels + 7) / 8;
    return sum;
}

// Channels last. In the backward pass x and y are dy and dx.
struct Pool {
    std::int64_t batch, channels, height, width, out_height, out_width;
    int kernel[2], stride[2], padding[2], dilation[2];
    const void* x;
    void* y;
    std::uint8_t* place;
    bool rectified, bfloat16;
    int threads;
};

// Channels last. A thread keeps `kept` rows of dy, transposed: `words` words of channels each. A word's columns lie in
// a line of `columns`, the first of them at `left`, with zeros around them.
struct InputGradient {
    std::int64_t batch, channels, height, width, out_channels, out_height, out_width;
    int kernel[2], stride[2], padding[2], dilation[2];
    const void* dy;
    const std::uint8_t* mask;    // of a rectifier behind the convolution, or null
    const std::int32_t* weight;  // [kernel height, kernel width, words, channels]
    void* dx;
    bool bfloat16;
    int threads;
    std::int64_t words, kept, columns, left;
    std::int32_t* scratch;  // threads x scratch_words(), zero
};

inline std::int64_t scratch_words(const InputGradient& r) {
    return r.kept * r.words * r.columns + r.width * r.channels;
}

constexpr int kPanel = 16;  // output channels whose weights lie side by side
constexpr int kStemPixels = 14;  // pixels of a row that are computed together

// Channels last. The number of output channels is a multiple of kPanel.
struct StemConvolution {
    std::int64_t batch, channels, height, width, out_channels, out_height, out_width;
    int kernel[2], stride[2], padding[2], dilation[2];  // columns have no dilation
    const void* x;
    const std::int32_t* weight;  // [panels, kernel height, words, kPanel]
    const float* bias;           // or null
    void* y;
    std::uint8_t* mask;  // null: no rectifier
    bool bfloat16;
    int threads;
    std::int64_t words;  // words in a filter's row
    void* scratch;       // threads x kernel height x row_elements()
};

// Elements of a padded row: as many as whole groups of pixels read, plus what the last word reaches beyond them.
inline std::int64_t row_elements(const StemConvolution& r) {
    return ((r.out_width + kStemPixels) * r.stride[1] + r.kernel[1] + 1) * r.channels;
}

// Forward and backward pass in one: `backward` reads the maps as dy, and `forward` writes no tensor.
struct StemGradient {
    StemConvolution forward;
    InputGradient backward;
    float* sums;          // [batch]
    double* row_sums;     // batch x out_height
    std::uint8_t* masks;  // threads x the mask of a row
};

// The convolution writes no tensor, and the pooling reads none.
struct StemPool {
    StemConvolution stem;
    Pool pool;
    void* rows;  // threads x kept_rows() rows of the convolution's output
};

inline std::int64_t kept_rows(const Pool& p) {
    return static_cast<std::int64_t>(p.dilation[0]) * (p.kernel[0] - 1) + 1;
}

// The pooling's backward pass writes no tensor, and the convolution's reads none.
struct StemPoolBackward {
    InputGradient backward;
    Pool pool;
    void* rows;  // threads x a row of the convolution's gradient
};

constexpr int kPlaces = 16;  // in a tile of 4 x 4
constexpr int kMostGroups = 2;  // groups of tiles in a block

// Channels last, bfloat16; both numbers of channels are multiples of kPanel. The input may be gated: by a rectifier's
// mask, or by the places of a 2 x 2 pooling, in which case x is that pooling's gradient. The output may go through a
// 2 x 2 pooling.
struct Winograd {
    std::int64_t batch, channels, height, width, out_channels, out_height, out_width;
    std::int64_t pooled_height, pooled_width;  // of the pooling at the input or the output
    int padding[2];
    const void* x;
    const std::uint8_t* gate;  // or null
    bool gated_by_place;
    const std::int32_t* weight;  // two channels per word: [panels, kPlaces, channels / 2, kPanel]
    const float* bias;           // or null
    void* y;
    std::uint8_t* mask;   // null: no rectifier, or the output is pooled
    std::uint8_t* place;  // null: no pooling
    bool rectified;       // whether the pooling rectifies its maxima
    int threads;
    std::int64_t block;  // groups of tiles that are transformed together, up to kMostGroups
    float* scratch;      // threads x scratch_floats()
};

// The stride between places has an extra line: strides that are multiples of 4096 bytes would map all places to one set
// of the first-level cache.
constexpr std::int64_t kLine = 16;  // floats

inline std::int64_t sums_stride(const Winograd& r) { return r.block * 16 * 32 + kLine; }

inline std::int64_t transformed_stride(const Winograd& r) { return r.block * 16 * r.channels / 2 + kLine; }

// Per thread: the sums and transformed pixels of a block (at most 16 tiles per group, at most 32 output channels), and
// a pixel of zeros.
inline std::int64_t scratch_floats(const Winograd& r) {
    return kPlaces * (sums_stride(r) + transformed_stride(r)) + (r.channels / 2 + kLine - 1) / kLine * kLine;
}

constexpr int kBlock = 14;  // pixels in a block

// Rows of channels, bfloat16; both numbers of channels are multiples of kPanel.
struct Pointwise {
    std::int64_t pixels, channels, out_channels;
    const void* x;
    const std::int32_t* weight;  // two channels per word: [panels, channels / 2, kPanel]
    const float* bias;           // or null
    void* y;
    std::uint8_t* mask;  // null: no rectifier
    int threads;
    std::int64_t group;      // blocks of pixels for which the filters are read once
    std::uint16_t* scratch;  // one block of pixels
};

struct Kernels {
    void (*render)(const Render&);
    void (*render_backward)(const RenderBackward&);
    void (*ascend)(const Ascend&);
    void (*dot)(const Dot&);
    void (*restrain)(const Restrain&);
    void (*rectify)(const Rectify&);
    void (*rectify_backward)(const RectifyBackward&);
    void (*max_pool)(const Pool&);
    void (*max_pool_backward)(const Pool&);
    void (*input_gradient)(const InputGradient&);
    void (*stem_convolution)(const StemConvolution&);
    void (*stem_gradient)(const StemGradient&);
    void (*stem_pool)(const StemPool&);
    void (*stem_pool_backward)(const StemPoolBackward&);
    void (*winograd)(const Winograd&);
    void (*pointwise)(const Pointwise&);
};

}  // namespace cnnvis_fast
