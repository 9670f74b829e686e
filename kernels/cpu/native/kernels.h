// What the instruction sets share: the kernels' arguments, and one table of functions for each set.
//
// Shapes are those of ops.py. Tensors are float32 unless told otherwise and were checked by the caller.

#pragma once

#include <cstdint>

namespace cnnvis_fast {

constexpr int kWidest = 16;       // lanes of the widest vectors
constexpr int kWidestFilter = 32;  // columns of a filter, see InputGradient
constexpr int kMostChannels = 4;  // a pixel's channels fill one 16-byte vector

// Work is cut into (image, band of rows) so that every thread gets the same number of tasks. What is computed
// for a pixel never depends on the band that it is in, so bits do not depend on the number of threads.
struct Pictures {
    std::int64_t batch, channels, height, width;
    const std::int64_t* jitter;  // [B, 2], or null
    const float* affine;         // [B, 2, 3], or null; both null: no warp
    int threads;
    float* scratch;  // threads x scratch_floats(), for affine warps
};

inline std::int64_t scratch_floats(const Pictures& pictures) {
    return 4 * (pictures.width * pictures.height + kWidest);  // whole vectors reach beyond the last pixel
}

struct Render {
    Pictures pictures;
    const float *z, *color, *mean, *std;
    void* x;        // channels last
    bool bfloat16;  // x's dtype, else float32
};

struct RenderBackward {
    Pictures pictures;
    const void* g;  // channels last
    bool bfloat16;  // g's dtype, else float32
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

constexpr std::int64_t kChunk = 4096;  // elements that are summed, or updated, in one go

inline std::int64_t chunks(std::int64_t size) { return (size + kChunk - 1) / kChunk; }

inline std::int64_t chunk_length(std::int64_t size, std::int64_t start) {
    return size - start < kChunk ? size - start : kChunk;
}

// Per image: two partial sums a chunk; sum and count of every band.
inline std::int64_t ascend_doubles(const Ascend& a) { return 2 * chunks(a.size) + 2 * a.bands; }

struct Dot {
    std::int64_t batch, size;
    const void *h, *maps;
    bool bfloat16;  // dtype of both, else float32
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

// Rows of channels, which are those of all parts one behind the other; a stride is from row to row, in
// elements. Every part's bytes of the mask are its own.
struct Part {
    std::int64_t channels, stride;
    const void* x;  // on the way back dx, which is written
};

struct Rectify {
    std::int64_t rows;
    int parts;
    const Part* part;
    const void* other;  // added first, or null
    std::int64_t other_stride;
    void* y;  // null: only the mask is wanted
    std::uint8_t* mask;
    bool bfloat16;  // every tensor's dtype, else float32; so below
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

// Channels last; on the way back x and y are dy and dx.
struct Pool {
    std::int64_t batch, channels, height, width, out_height, out_width;
    int kernel[2], stride[2], padding[2], dilation[2];
    const void* x;
    void* y;
    std::uint8_t* place;
    bool rectified, bfloat16;
    int threads;
};

// Channels last. Rows of dy are kept turned, `kept` of them, `words` words of channels each; a word's columns
// lie in a line of `columns`, the first of them at `left`, zeros around them.
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
constexpr int kStemPixels = 14;

// Channels last; output channels are a multiple of kPanel.
struct StemConvolution {
    std::int64_t batch, channels, height, width, out_channels, out_height, out_width;
    int kernel[2], stride[2], padding[2], dilation[2];  // columns are not dilated
    const void* x;
    const std::int32_t* weight;  // [panels, kernel height, words, kPanel]
    const float* bias;           // or null
    void* y;
    std::uint8_t* mask;  // null: no rectifier
    bool bfloat16;
    int threads;
    std::int64_t words;  // of a filter's row
    void* scratch;       // threads x kernel height x row_elements()
};

// As many as whole groups of pixels read, and what a last word reaches over.
inline std::int64_t row_elements(const StemConvolution& r) {
    return ((r.out_width + kStemPixels) * r.stride[1] + r.kernel[1] + 1) * r.channels;
}

// Both ways at once; `back` reads the maps as dy, and `there` writes nothing.
struct StemGradient {
    StemConvolution there;
    InputGradient back;
    float* sums;          // [batch]
    double* row_sums;     // batch x out_height
    std::uint8_t* masks;  // threads x a row's
};

// The convolution writes to no tensor, and the pooling reads none.
struct StemPool {
    StemConvolution stem;
    Pool pool;
    void* rows;  // threads x kept_rows() of the convolution's
};

inline std::int64_t kept_rows(const Pool& p) { return static_cast<std::int64_t>(p.dilation[0]) * (p.kernel[0] - 1) + 1; }

// The pooling writes no gradient, and the convolution reads none.
struct StemPoolBackward {
    InputGradient back;
    Pool pool;
    void* rows;  // threads x one of the convolution's
};

constexpr int kPlaces = 16;  // of a tile of 4 x 4
constexpr int kMostGroups = 2;

// Channels last, bfloat16; channels of both are multiples of kPanel. What is read may be gated: by a rectifier's mask, or
// by the places of a pooling of 2 x 2, whose gradient x then is; what is written may be pooled in the same way.
struct Winograd {
    std::int64_t batch, channels, height, width, out_channels, out_height, out_width;
    std::int64_t pooled_height, pooled_width;  // of the one or the other
    int padding[2];
    const void* x;
    const std::uint8_t* gate;  // or null
    bool gated_by_place;
    const std::int32_t* weight;  // two channels a word: [panels, kPlaces, channels / 2, kPanel]
    const float* bias;           // or null
    void* y;
    std::uint8_t* mask;   // null: no rectifier, or a pooling
    std::uint8_t* place;  // null: no pooling
    bool rectified;       // of a pooling
    int threads;
    std::int64_t block;  // groups of tiles that are turned at once, up to kMostGroups
    float* scratch;      // threads x scratch_floats()
};

// From place to place there is a line more than is needed: distances that are multiples of 4096 bytes would put
// all places into one set of the first-level cache.
constexpr std::int64_t kLine = 16;  // floats

inline std::int64_t sums_stride(const Winograd& r) { return r.block * 16 * 32 + kLine; }

inline std::int64_t turned_stride(const Winograd& r) { return r.block * 16 * r.channels / 2 + kLine; }

// Of a thread: sums and turned pixels of a block, of at most 16 tiles a group and for at most 32 output channels, and
// a pixel of zeros.
inline std::int64_t scratch_floats(const Winograd& r) {
    return kPlaces * (sums_stride(r) + turned_stride(r)) + (r.channels / 2 + kLine - 1) / kLine * kLine;
}

constexpr int kBlock = 14;  // pixels

// Rows of channels, bfloat16; both numbers of channels are multiples of kPanel.
struct Pointwise {
    std::int64_t pixels, channels, out_channels;
    const void* x;
    const std::int32_t* weight;  // two channels a word: [panels, channels / 2, kPanel]
    const float* bias;           // or null
    void* y;
    std::uint8_t* mask;  // null: no rectifier
    int threads;
    std::int64_t group;      // blocks of pixels that filters are read for at once
    std::uint16_t* scratch;  // a block of pixels
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
