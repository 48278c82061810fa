// The student's blocks in training on processors with AMX (bf16 matrix units) or AVX-512's bf16; for student_cpu.py.
//
// A map is (H + 2, W + 2, 16) bf16 with a border of zeros, so that a 3 x 3 convolution needs no cases. Of its nine
// taps two neighbours in a row are one run of 32 values, one row of an AMX tile: six products of (16 pixels, 32) by
// (32, 16) make 16 pixels. The gradient of the weights is a product over pixels: one operand is the row transposed,
// the other two pixels interleaved. Everything that belongs to a pixel is done while it is in a register.
// Without AMX, vectors of 16 outputs take the tiles' place, and two inputs at a time a tile's rows.
//
// One thread takes whole pictures, always the same ones, so that results do not depend on timing.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

using bf16 = uint16_t;
constexpr int C = 16;
constexpr int OUTER = 3, INNER = 6, BLOCKS = OUTER * INNER;
constexpr int CONVS = OUTER * (2 * INNER + 1) + 1;  // the last behind the blocks
constexpr int MAPS = 3 * BLOCKS + OUTER + 3;        // that a picture keeps
constexpr int WIDE = OUTER * C;
constexpr int PACKED = 6 * 512;  // values of a convolution's six weight tiles
constexpr int DW = 9 * C * C;
constexpr int CHANNEL = 96, PIXEL = 64, FUSION = 112;  // gradients of an attention's parameters, with room

struct Shape {
    long height, width, row, map;  // row, map: values of a padded row, of a map

    Shape(long h, long w) : height(h), width(w), row((w + 2) * C), map((h + 2) * (w + 2) * C + 64) {}

    long at(long y, long x) const { return (y + 1) * row + (x + 1) * C; }
};

struct Parameters {
    const float *w, *b, *w1, *b1, *w2, *b2, *v1, *c1, *v2, *c2, *f1, *d1, *f2, *d2;
};

struct Saved {  // of one picture
    bf16* maps;
    uint16_t* bits;
    float *mean, *weights;
};

// --- values ---

inline __m512 up(const bf16* p) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

inline __m256i rounded(__m512 v) { return (__m256i)_mm512_cvtneps_pbh(v); }

inline void down(bf16* p, __m512 v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded(v)); }

inline bf16 rounded(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return static_cast<bf16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// 1 / (1 + exp(-x)); exp by a polynomial, to 2e-7 of its value.
inline __m512 sigmoid(__m512 x) {
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(80)), _mm512_set1_ps(-80));
    const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
    const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 r = _mm512_mul_ps(_mm512_sub_ps(t, n), _mm512_set1_ps(0.69314718f));
    __m512 e = _mm512_set1_ps(1.0f / 720);
    for (float c : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(c));
    return _mm512_div_ps(_mm512_set1_ps(1), _mm512_add_ps(_mm512_set1_ps(1), _mm512_scalef_ps(e, n)));
}

// Lane p of the answer is the sum of v[p]'s lanes. Overwrites v.
inline __m512 sums(__m512 v[16]) {
    for (int i = 0; i < 8; i++)
        v[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(v[2 * i]), b = _mm512_castps_pd(v[2 * i + 1]);
        v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (int count = 2; count >= 1; count /= 2)
        for (int i = 0; i < count; i++)
            v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),
                                 _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));
    return v[0];
}

// --- tiles ---

#ifdef __AMX_BF16__
struct __attribute__((packed)) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

struct Tiles {  // the matrix unit, as long as a thread works with it
    Tiles() {
        const TileConfig config;
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
};
#else
struct Tiles {};

// acc[i] += b, 16 outputs of two inputs each, times the two inputs at `pairs` + i `step`.
inline void add_products(__m512 acc[16], const bf16* pairs, long step, const bf16* b) {
    const __m512bh row = (__m512bh)_mm512_loadu_si512(b);
    for (int i = 0; i < 16; i++) {
        int pair;
        std::memcpy(&pair, pairs + i * step, sizeof pair);
        acc[i] = _mm512_dpbf16_ps(acc[i], (__m512bh)_mm512_set1_epi32(pair), row);
    }
}
#endif

// w (16 out, 16 in, 3, 3) -> six tiles of 16 pairs of inputs by 16 outputs; turned: the convolution of its gradient.
void pack(const float* w, bf16* into, bool turned) {
    for (int t = 0; t < 6; t++)
        for (int k = 0; k < 32; k++)
            for (int n = 0; n < C; n++) {
                const int ky = t / 2, kx = t % 2 * 2 + k / C, c = k % C;
                float value = 0;
                if (kx < 3)
                    value = turned ? w[(c * C + n) * 9 + (2 - ky) * 3 + 2 - kx] : w[(n * C + c) * 9 + ky * 3 + kx];
                into[t * 512 + k / 2 * 32 + n * 2 + k % 2] = rounded(value);
            }
}

#define EACH_TILE(DO) \
    if constexpr (G > 0) DO(0); \
    if constexpr (G > 1) DO(1); \
    if constexpr (G > 2) DO(2); \
    if constexpr (G > 3) DO(3); \
    if constexpr (G > 4) DO(4); \
    if constexpr (G > 5) DO(5);

// A convolution at 16 G pixels; `in` is the pixel up and left of the first one's, `out` (16 G, 16). `beside(t)` is called
// for t = 0 to 5 among the products: other work, for which the processor has time while the matrix unit is busy.
template <int G, class Beside>
inline void convolve(const bf16* in, long row, const bf16* w, const float* bias, float* out, Beside beside) {
#ifdef __AMX_BF16__
#define START(k) _tile_loadd(k, bias, 0)
    EACH_TILE(START)
    for (int t = 0; t < 6; t++) {
        const bf16* at = in + t / 2 * row + t % 2 * 2 * C;
        _tile_loadd(7, w + t * 512, 64);
#define TAKE(k) _tile_loadd(6, at + k * 16 * C, 2 * C); _tile_dpbf16ps(k, 6, 7)
        EACH_TILE(TAKE)
        beside(t);
    }
#define STORE(k) _tile_stored(k, out + k * 256, 64)
    EACH_TILE(STORE)
#undef START
#undef TAKE
#undef STORE
#else
    for (int group = 0; group < G; group++) {
        __m512 acc[16];
        for (auto& a : acc) a = _mm512_loadu_ps(bias);
        for (int t = 0; t < 6; t++) {
            const bf16* at = in + t / 2 * row + t % 2 * 2 * C + group * 16 * C;
            for (int k = 0; k < (t % 2 ? 8 : 16); k++) add_products(acc, at + 2 * k, C, w + t * 512 + k * 32);
        }
        for (int i = 0; i < 16; i++) _mm512_store_ps(out + group * 256 + i * C, acc[i]);
    }
    for (int t = 0; t < 6; t++) beside(t);
#endif
}

// A convolution of a row of pixels: `finish(x, v)` gets the answer v at column x. That of one group of pixels is
// finished during the products of the next.
template <int G, class Finish>
inline void convolve_row(const Shape& s, const bf16* in, long y, const bf16* w, const float* bias, Finish finish) {
    alignas(64) float acc[2][G * 256];
    constexpr int COUNT = 16 * G;
    const long groups = s.width / COUNT;
    for (long group = 0; group <= groups; group++) {
        const float* before = acc[(group + 1) % 2];
        const auto beside = [&](int t) {
            if (group)
                for (int p = COUNT * t / 6; p < COUNT * (t + 1) / 6; p++)
                    finish((group - 1) * COUNT + p, _mm512_load_ps(before + p * C));
        };
        if (group < groups)
            convolve<G>(in + s.at(y - 1, group * COUNT - 1), s.row, w, bias, acc[group % 2], beside);
        else
            for (int t = 0; t < 6; t++) beside(t);
    }
}

// Two neighbouring pixels, interleaved: 16 pairs, one a channel.
inline __m512i interleaved(const bf16* p) {
    alignas(64) static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_load_si512(order), _mm512_loadu_si512(p));
}

// 32 pixels of 16 channels -> 16 channels of 32 pixels.
inline void transpose(const bf16* from, bf16* into) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = interleaved(from + i * 2 * C);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + 2 + j]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + 2 + j]);
        }
    // a[4 q + r]: in lane l the values of channel 4 l + r of the pairs 4 q to 4 q + 3.
    for (int r = 0; r < 4; r++) {
        const __m512i p = _mm512_shuffle_i32x4(a[r], a[4 + r], 0x88), q = _mm512_shuffle_i32x4(a[8 + r], a[12 + r], 0x88);
        const __m512i s = _mm512_shuffle_i32x4(a[r], a[4 + r], 0xdd), t = _mm512_shuffle_i32x4(a[8 + r], a[12 + r], 0xdd);
        _mm512_store_si512(into + r * 32, _mm512_shuffle_i32x4(p, q, 0x88));
        _mm512_store_si512(into + (4 + r) * 32, _mm512_shuffle_i32x4(s, t, 0x88));
        _mm512_store_si512(into + (8 + r) * 32, _mm512_shuffle_i32x4(p, q, 0xdd));
        _mm512_store_si512(into + (12 + r) * 32, _mm512_shuffle_i32x4(s, t, 0xdd));
    }
}

// --- forward ---

enum class Forward { closing, first, second, last };

// closing: conv + skip, and its sum over the picture, also without border in `plain`; first: relu(conv) + input, and
// where conv > 0; second: conv and its sum over the picture; last: conv, only in `plain`.
template <int G, Forward KIND>
void forward_conv(const Shape& s, const bf16* in, const bf16* w, const float* b, bf16* out, const bf16* skip,
                  bf16* plain, uint16_t* bits, float* total) {
    alignas(64) float bias[C];
    std::memcpy(bias, b, sizeof bias);
    __m512 sum = _mm512_setzero_ps();
    for (long y = 0; y < s.height; y++) {
        const long here = s.at(y, 0), flat = y * s.width;
        convolve_row<G>(s, in, y, w, bias, [&](long x, __m512 v) {
            const long at = here + x * C;
            if constexpr (KIND == Forward::closing) {
                v = _mm512_add_ps(v, up(skip + at));
                down(plain + (flat + x) * C, v);
            }
            if constexpr (KIND == Forward::last) {
                down(plain + (flat + x) * C, v);
                return;
            }
            if constexpr (KIND == Forward::first) {
                const __mmask16 positive = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GT_OQ);
                bits[flat + x] = positive;
                const __m512 from = up(in + at);
                v = _mm512_mask_add_ps(from, positive, v, from);
            }
            if constexpr (KIND != Forward::first) sum = _mm512_add_ps(sum, v);
            down(out + at, v);
        });
    }
    if (total) _mm512_storeu_ps(total, sum);
}

struct Pixel {  // pixel attention of one block behind the channels' weights of one picture
    __m512 weights, w0, w1;
    float b0, b1, v0, v1, c;

    Pixel(const Parameters& p, int block, const float* channel)
        : weights(_mm512_loadu_ps(channel)),
          w0(_mm512_loadu_ps(p.v1 + block * 2 * C)),
          w1(_mm512_loadu_ps(p.v1 + block * 2 * C + C)),
          b0(p.c1[2 * block]),
          b1(p.c1[2 * block + 1]),
          v0(p.v2[2 * block]),
          v1(p.v2[2 * block + 1]),
          c(p.c2[block]) {}

    // Of 16 pixels z: the hidden layer h0 and h1, and the answer.
    __m512 attend(const __m512 z[16], __m512& h0, __m512& h1) const {
        __m512 v[16];
        for (int p = 0; p < 16; p++) v[p] = _mm512_mul_ps(z[p], w0);
        h0 = _mm512_max_ps(_mm512_add_ps(sums(v), _mm512_set1_ps(b0)), _mm512_setzero_ps());
        for (int p = 0; p < 16; p++) v[p] = _mm512_mul_ps(z[p], w1);
        h1 = _mm512_max_ps(_mm512_add_ps(sums(v), _mm512_set1_ps(b1)), _mm512_setzero_ps());
        const __m512 a = _mm512_fmadd_ps(h0, _mm512_set1_ps(v0), _mm512_set1_ps(c));
        return sigmoid(_mm512_fmadd_ps(h1, _mm512_set1_ps(v1), a));
    }
};

void forward_channel(const Shape& s, const Parameters& p, int block, float* mean, float* weights) {
    float h[2];
    for (int c = 0; c < C; c++) mean[c] /= static_cast<float>(s.height * s.width);
    for (int i = 0; i < 2; i++) {
        h[i] = p.b1[2 * block + i];
        for (int c = 0; c < C; c++) h[i] += p.w1[(2 * block + i) * C + c] * mean[c];
        h[i] = h[i] > 0 ? h[i] : 0;
    }
    alignas(64) float a[C];
    for (int c = 0; c < C; c++) {
        const float* w = p.w2 + (block * C + c) * 2;
        a[c] = w[0] * h[0] + w[1] * h[1] + p.b2[block * C + c];
    }
    _mm512_storeu_ps(weights, sigmoid(_mm512_load_ps(a)));
}

// Weights of the outer blocks' channels from the sums of their maps, which become means.
void forward_fusion(const Shape& s, const Parameters& p, float* mean, float* weights) {
    float h = p.d1[0];
    alignas(64) float a[WIDE];
    for (int c = 0; c < WIDE; c++) {
        mean[c] /= static_cast<float>(s.height * s.width);
        h += p.f1[c] * mean[c];
    }
    for (int c = 0; c < WIDE; c++) a[c] = p.f2[c] * (h > 0 ? h : 0) + p.d2[c];
    for (int o = 0; o < OUTER; o++) _mm512_storeu_ps(weights + o * C, sigmoid(_mm512_load_ps(a + o * C)));
}

void forward_sum(const Shape& s, const float* weights, const bf16* const m[3], bf16* out) {
    __m512 a[OUTER];
    for (int o = 0; o < OUTER; o++) a[o] = _mm512_loadu_ps(weights + o * C);
    for (long y = 0; y < s.height; y++)
        for (long x = 0; x < s.width; x++) {
            const long at = s.at(y, x);
            __m512 v = _mm512_mul_ps(a[0], up(m[0] + at));
            for (int o = 1; o < OUTER; o++) v = _mm512_fmadd_ps(a[o], up(m[o] + at), v);
            down(out + at, v);
        }
}

// out = z s + x, where z is y times the channels' weights; without x if there is none.
void forward_pixel(const Shape& s, const Pixel& attention, const bf16* y, const bf16* x, bf16* out) {
    for (long r = 0; r < s.height; r++)
        for (long c = 0; c < s.width; c += 16) {
            const long here = s.at(r, c);
            __m512 z[16], h0, h1;
            for (int p = 0; p < 16; p++) z[p] = _mm512_mul_ps(up(y + here + p * C), attention.weights);
            alignas(64) float share[16];
            _mm512_store_ps(share, attention.attend(z, h0, h1));
            for (int p = 0; p < 16; p++) {
                const __m512 from = x ? up(x + here + p * C) : _mm512_setzero_ps();
                down(out + here + p * C, _mm512_fmadd_ps(z[p], _mm512_set1_ps(share[p]), from));
            }
        }
}

const float ONES[C] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// A picture's maps: of block j its input, relu(conv1) + input, conv2; of the outer blocks the closing convolution's input;
// the last one's answer; their weighted sum; and that attended.
bf16* outer_answer(const Shape& s, bf16* maps, int o) {
    return maps + (o + 1 < OUTER ? 3 * INNER * (o + 1) : 3 * BLOCKS + OUTER) * s.map;
}

template <int G>
void forward_picture(const Shape& s, const Parameters& p, const bf16* packed, const bf16* h, Saved saved, bf16* const m[3],
                     bf16* answer) {
    const auto map = [&](int k) { return saved.maps + k * s.map; };
    for (long y = 0; y < s.height; y++) std::memcpy(map(0) + s.at(y, 0), h + y * s.width * C, s.width * C * sizeof(bf16));
    float *wide = saved.mean + BLOCKS * C, *shares = saved.weights + BLOCKS * C;
    for (int o = 0; o < OUTER; o++) {
        for (int i = 0; i < INNER; i++) {
            const int j = INNER * o + i, k = 13 * o + 2 * i;
            bf16 *x = map(3 * j), *u = map(3 * j + 1), *y = map(3 * j + 2);
            bf16* out = i + 1 < INNER ? map(3 * j + 3) : map(3 * BLOCKS + o);
            float *mean = saved.mean + j * C, *weights = saved.weights + j * C;
            uint16_t* bits = saved.bits + j * s.height * s.width;
            forward_conv<G, Forward::first>(s, x, packed + k * PACKED, p.b + k * C, u, nullptr, nullptr, bits, nullptr);
            forward_conv<G, Forward::second>(s, u, packed + (k + 1) * PACKED, p.b + (k + 1) * C, y, nullptr, nullptr,
                                             nullptr, mean);
            forward_channel(s, p, j, mean, weights);
            forward_pixel(s, Pixel(p, j, weights), y, x, out);
        }
        const int k = 13 * o + 12;
        forward_conv<G, Forward::closing>(s, map(3 * BLOCKS + o), packed + k * PACKED, p.b + k * C,
                                          outer_answer(s, saved.maps, o), map(3 * INNER * o), m[o], nullptr,
                                          wide + o * C);
    }
    forward_fusion(s, p, wide, shares);
    const bf16* outer[3];
    for (int o = 0; o < OUTER; o++) outer[o] = outer_answer(s, saved.maps, o);
    bf16 *sum = map(MAPS - 2), *attended = map(MAPS - 1);
    forward_sum(s, shares, outer, sum);
    forward_pixel(s, Pixel(p, BLOCKS, ONES), sum, nullptr, attended);
    forward_conv<G, Forward::last>(s, attended, packed + (CONVS - 1) * PACKED, p.b + (CONVS - 1) * C, nullptr, nullptr,
                                   answer, nullptr, nullptr);
}

// --- backward ---

struct Gradients {  // added up over a thread's pictures
    float *dw, *db, *channel, *pixel, *fusion;
};

struct Rows {  // what the gradient of the weights needs of a row of g and of three of the input, transposed
    std::vector<bf16> memory;
    bf16 *even, *odd, *input[3];

    explicit Rows(const Shape& s) : memory(s.width * C * 5 + 2 * C + 64) {
        const auto at = reinterpret_cast<uintptr_t>(memory.data());
        even = reinterpret_cast<bf16*>((at + 63) / 64 * 64);
        for (int i = 0; i < 3; i++) input[i] = even + (i + 1) * s.width * C;
        odd = even + 4 * s.width * C;
    }
};

enum class Backward { closing, first, second };

// Gradients of a convolution's input and weights from g, that of its output.
// closing: nothing else; first: `skip` is added to the input's; second: `constant` is first added to g; then ds gets the
// input's with `skip` (and `extra`, if any), and dx the same gradient of the convolution alone where `bits` are set.
template <int G, Backward KIND>
void backward_conv(const Shape& s, bf16* g, const bf16* w, const bf16* input, bf16* dx, bf16* ds, const float* constant,
                   const uint16_t* bits, const bf16* skip, const bf16* extra, float* dw, float* db, Rows& rows) {
    alignas(64) static const float none[C] = {};
    __m512 bias[2] = {_mm512_loadu_ps(db), _mm512_setzero_ps()};
    for (long y = -1; y < s.height; y++) {
        if (const long next = y + 1; next < s.height) {
            if constexpr (KIND == Backward::second)
                for (bf16 *at = g + s.at(next, 0), *end = at + s.width * C; at < end; at += C)
                    down(at, _mm512_add_ps(up(at), _mm512_loadu_ps(constant)));
            for (long b = 0; b < s.width / 32; b++)
                transpose(input + s.at(next, 32 * b), rows.input[next % 3] + b * 512);
        }
        if (y < 0) continue;
        const long here = s.at(y, 0);
        const uint16_t* positive = bits + y * s.width;
        convolve_row<G>(s, g, y, w, none, [&](long x, __m512 v) {
            const long at = here + x * C;
            if constexpr (KIND == Backward::first) v = _mm512_add_ps(v, up(skip + at));
            if constexpr (KIND == Backward::second) {
                __m512 total = _mm512_add_ps(v, up(skip + at));
                if (extra) total = _mm512_add_ps(total, up(extra + at));
                down(ds + at, total);
                v = _mm512_maskz_mov_ps(positive[x], v);
            }
            down(dx + at, v);
        });
        const bf16* line = g + here;
        for (long j = 0; j < s.width / 2; j++) {
            const __m512i pair = interleaved(line + j * 2 * C);
            bias[0] = _mm512_add_ps(bias[0], _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)));
            bias[1] = _mm512_add_ps(bias[1], _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(-65536))));
            _mm512_store_si512(rows.even + j * 2 * C, pair);
            _mm512_store_si512(rows.odd + j * 2 * C, interleaved(line + (2 * j - 1) * C));
        }
        _mm512_store_si512(rows.odd + s.width * C, interleaved(line + (s.width - 1) * C));
        for (int ky = 0; ky < 3; ky++) {
            const long from = y + ky - 1;
            if (from < 0 || from >= s.height) continue;
            const bf16* inputs = rows.input[from % 3];
            float* into = dw + ky * 3 * C * C;
#ifdef __AMX_BF16__
            _tile_loadd(0, into, 64);
            _tile_loadd(1, into + C * C, 64);
            _tile_loadd(2, into + 2 * C * C, 64);
            for (long b = 0; b < s.width / 32; b++) {
                _tile_loadd(3, inputs + b * 512, 64);
                _tile_loadd(4, rows.odd + b * 512 + 2 * C, 64);
                _tile_loadd(5, rows.even + b * 512, 64);
                _tile_loadd(6, rows.odd + b * 512, 64);
                _tile_dpbf16ps(0, 3, 4);
                _tile_dpbf16ps(1, 3, 5);
                _tile_dpbf16ps(2, 3, 6);
            }
            _tile_stored(0, into, 64);
            _tile_stored(1, into + C * C, 64);
            _tile_stored(2, into + 2 * C * C, 64);
#else
            const bf16* const gradients[3] = {rows.odd + 2 * C, rows.even, rows.odd};
            for (int kx = 0; kx < 3; kx++, into += C * C) {
                __m512 acc[16];
                for (int c = 0; c < C; c++) acc[c] = _mm512_loadu_ps(into + c * C);
                for (long b = 0; b < s.width / 32; b++)
                    for (int k = 0; k < 16; k++)
                        add_products(acc, inputs + b * 512 + 2 * k, 32, gradients[kx] + b * 512 + k * 32);
                for (int c = 0; c < C; c++) _mm512_storeu_ps(into + c * C, acc[c]);
            }
#endif
        }
    }
    _mm512_storeu_ps(db, _mm512_add_ps(bias[0], bias[1]));
}

// From g, that of the block's attended map: dy, that of y but for the channels' mean; `total`, that of the channels'
// weights; and the parameters': v1 in 0 to 31, then c1, v2, c2 in 32 to 36.
void backward_pixel(const Shape& s, const Pixel& a, const bf16* g, const bf16* y, bf16* dy, float* total, float* grads) {
    __m512 dw0 = _mm512_loadu_ps(grads), dw1 = _mm512_loadu_ps(grads + C), sum = _mm512_setzero_ps();
    __m512 db0 = _mm512_setzero_ps(), db1 = db0, dv0 = db0, dv1 = db0, dc = db0;
    for (long r = 0; r < s.height; r++)
        for (long c = 0; c < s.width; c += 16) {
            const long here = s.at(r, c);
            __m512 z[16], v[16], h0, h1;
            for (int p = 0; p < 16; p++) z[p] = _mm512_mul_ps(up(y + here + p * C), a.weights);
            const __m512 share = a.attend(z, h0, h1);
            for (int p = 0; p < 16; p++) v[p] = _mm512_mul_ps(z[p], up(g + here + p * C));
            const __m512 slope = _mm512_mul_ps(share, _mm512_sub_ps(_mm512_set1_ps(1), share));
            const __m512 da = _mm512_mul_ps(sums(v), slope);
            const __mmask16 on0 = _mm512_cmp_ps_mask(h0, _mm512_setzero_ps(), _CMP_GT_OQ);
            const __mmask16 on1 = _mm512_cmp_ps_mask(h1, _mm512_setzero_ps(), _CMP_GT_OQ);
            const __m512 dh0 = _mm512_maskz_mul_ps(on0, da, _mm512_set1_ps(a.v0));
            const __m512 dh1 = _mm512_maskz_mul_ps(on1, da, _mm512_set1_ps(a.v1));
            db0 = _mm512_add_ps(db0, dh0);
            db1 = _mm512_add_ps(db1, dh1);
            dv0 = _mm512_fmadd_ps(da, h0, dv0);
            dv1 = _mm512_fmadd_ps(da, h1, dv1);
            dc = _mm512_add_ps(dc, da);
            alignas(64) float t[3][16];
            _mm512_store_ps(t[0], share);
            _mm512_store_ps(t[1], dh0);
            _mm512_store_ps(t[2], dh1);
            for (int p = 0; p < 16; p++) {
                const __m512 d0 = _mm512_set1_ps(t[1][p]), d1 = _mm512_set1_ps(t[2][p]);
                __m512 dz = _mm512_mul_ps(up(g + here + p * C), _mm512_set1_ps(t[0][p]));
                dz = _mm512_fmadd_ps(d1, a.w1, _mm512_fmadd_ps(d0, a.w0, dz));
                down(dy + here + p * C, _mm512_mul_ps(dz, a.weights));
                sum = _mm512_fmadd_ps(dz, up(y + here + p * C), sum);
                dw0 = _mm512_fmadd_ps(d0, z[p], dw0);
                dw1 = _mm512_fmadd_ps(d1, z[p], dw1);
            }
        }
    _mm512_storeu_ps(total, sum);
    _mm512_storeu_ps(grads, dw0);
    _mm512_storeu_ps(grads + C, dw1);
    const __m512 rest[5] = {db0, db1, dv0, dv1, dc};
    for (int i = 0; i < 5; i++) grads[2 * C + i] += _mm512_reduce_add_ps(rest[i]);
}

// What channel attention adds to each pixel's gradient, and its parameters': w1 in 0 to 31, w2 in 32 to 63 (two rows of
// 16), b2 in 64 to 79, b1 in 80 and 81.
void backward_channel(const Shape& s, const Parameters& p, int block, const float* total, const float* mean,
                      const float* weights, float* constant, float* grads) {
    float h[2], dh[2] = {0, 0}, da[C];
    const float* w1 = p.w1 + block * 2 * C;
    for (int i = 0; i < 2; i++) {
        h[i] = p.b1[2 * block + i];
        for (int c = 0; c < C; c++) h[i] += w1[i * C + c] * mean[c];
        h[i] = h[i] > 0 ? h[i] : 0;
    }
    for (int c = 0; c < C; c++) {
        da[c] = total[c] * weights[c] * (1 - weights[c]);
        for (int i = 0; i < 2; i++) dh[i] += da[c] * p.w2[(block * C + c) * 2 + i];
    }
    for (int i = 0; i < 2; i++)
        if (h[i] <= 0) dh[i] = 0;
    for (int c = 0; c < C; c++) {
        constant[c] = (dh[0] * w1[c] + dh[1] * w1[C + c]) / static_cast<float>(s.height * s.width);
        for (int i = 0; i < 2; i++) {
            grads[i * C + c] += dh[i] * mean[c];
            grads[2 * C + i * C + c] += da[c] * h[i];
        }
        grads[4 * C + c] += da[c];
    }
    for (int i = 0; i < 2; i++) grads[5 * C + i] += dh[i];
}

// From that of the weighted sum: `constant`, what the shares add to each pixel's gradient of each map; and the parameters':
// f1 in 0 to 47, f2 in 48 to 95, d1 in 96; that of d2 is `slope`, (48), added too.
void backward_fusion(const Shape& s, const Parameters& p, const bf16* g, const bf16* const m[3], const float* mean,
                     const float* shares, float* constant, float* grads, float* slope) {
    __m512 sum[OUTER] = {};
    for (long y = 0; y < s.height; y++)
        for (long x = 0; x < s.width; x++) {
            const long at = s.at(y, x);
            const __m512 v = up(g + at);
            for (int o = 0; o < OUTER; o++) sum[o] = _mm512_fmadd_ps(v, up(m[o] + at), sum[o]);
        }
    float total[WIDE], h = p.d1[0], dh = 0;
    for (int o = 0; o < OUTER; o++) _mm512_storeu_ps(total + o * C, sum[o]);
    for (int c = 0; c < WIDE; c++) h += p.f1[c] * mean[c];
    for (int c = 0; c < WIDE; c++) {
        const float da = total[c] * shares[c] * (1 - shares[c]);
        slope[c] += da;
        if (h > 0) {
            grads[WIDE + c] += da * h;
            dh += da * p.f2[c];
        }
    }
    for (int c = 0; c < WIDE; c++) {
        grads[c] += dh * mean[c];
        constant[c] = dh * p.f1[c] / static_cast<float>(s.height * s.width);
    }
    grads[2 * WIDE] += dh;
}

struct Scratch {  // a thread's maps, borders of zeros
    std::vector<bf16> memory;
    Rows rows;
    bf16* maps[7];

    explicit Scratch(const Shape& s) : memory(7 * s.map + 64), rows(s) {
        const auto at = reinterpret_cast<uintptr_t>(memory.data());
        for (int i = 0; i < 7; i++) maps[i] = reinterpret_cast<bf16*>((at + 63) / 64 * 64) + i * s.map;
    }
};

template <int G>
void backward_picture(const Shape& s, const Parameters& p, const bf16* packed, Saved saved, const bf16* answer,
                      const bf16* const gm[3], bf16* dh, Gradients grads, Scratch& scratch) {
    const auto map = [&](int k) { return saved.maps + k * s.map; };
    bf16 *closing = scratch.maps[0], *g = scratch.maps[1], *dx = scratch.maps[2], *dy = scratch.maps[3],
         *du = scratch.maps[4], *ds = scratch.maps[5], *of_sum = scratch.maps[6];
    const long line = s.width * C;
    alignas(64) float total[C], constant[C], wide[WIDE];
    const float* shares = saved.weights + BLOCKS * C;
    const bf16* outer[3];
    for (int o = 0; o < OUTER; o++) outer[o] = outer_answer(s, saved.maps, o);
    for (long y = 0; y < s.height; y++) std::memcpy(closing + s.at(y, 0), answer + y * line, line * sizeof(bf16));
    backward_conv<G, Backward::closing>(s, closing, packed + (CONVS - 1) * PACKED, map(MAPS - 1), g, nullptr, nullptr,
                                        nullptr, nullptr, nullptr, grads.dw + (CONVS - 1) * DW,
                                        grads.db + (CONVS - 1) * C, scratch.rows);
    backward_pixel(s, Pixel(p, BLOCKS, ONES), g, map(MAPS - 2), of_sum, total, grads.pixel + BLOCKS * PIXEL);
    backward_fusion(s, p, of_sum, outer, saved.mean + BLOCKS * C, shares, wide, grads.fusion, grads.fusion + FUSION);
    for (int o = OUTER - 1; o >= 0; o--) {
        const __m512 share = _mm512_loadu_ps(shares + o * C), added = _mm512_load_ps(wide + o * C);
        for (long y = 0; y < s.height; y++)
            for (long x = 0; x < s.width; x++) {
                __m512 v = _mm512_fmadd_ps(share, up(of_sum + s.at(y, x)), added);
                if (gm[o]) v = _mm512_add_ps(v, up(gm[o] + y * line + x * C));
                if (o + 1 < OUTER) v = _mm512_add_ps(v, up(g + s.at(y, x)));
                down(closing + s.at(y, x), v);
            }
        const int last = 13 * o + 12;
        backward_conv<G, Backward::closing>(s, closing, packed + last * PACKED, map(3 * BLOCKS + o), g, nullptr, nullptr,
                                            nullptr, nullptr, nullptr, grads.dw + last * DW, grads.db + last * C,
                                            scratch.rows);
        for (int i = INNER - 1; i >= 0; i--) {
            const int j = INNER * o + i, k = 13 * o + 2 * i;
            const float *mean = saved.mean + j * C, *weights = saved.weights + j * C;
            const uint16_t* bits = saved.bits + j * s.height * s.width;
            backward_pixel(s, Pixel(p, j, weights), g, map(3 * j + 2), dy, total, grads.pixel + j * PIXEL);
            backward_channel(s, p, j, total, mean, weights, constant, grads.channel + j * CHANNEL);
            backward_conv<G, Backward::second>(s, dy, packed + (k + 1) * PACKED, map(3 * j + 1), du, ds, constant, bits, g,
                                               i == 0 ? closing : nullptr, grads.dw + (k + 1) * DW,
                                               grads.db + (k + 1) * C, scratch.rows);
            backward_conv<G, Backward::first>(s, du, packed + k * PACKED, map(3 * j), dx, nullptr, nullptr, nullptr, ds,
                                              nullptr, grads.dw + k * DW, grads.db + k * C, scratch.rows);
            std::swap(g, dx);
        }
    }
    for (long y = 0; y < s.height; y++) std::memcpy(dh + y * line, g + s.at(y, 0), line * sizeof(bf16));
}

// --- all pictures ---

template <class Work>
void share(int pictures, int threads, Work work) {
    std::vector<std::thread> others;
    const auto part = [&](int t) {
        [[maybe_unused]] const Tiles tiles;
        work(t, [&](auto one) {
            for (int n = t; n < pictures; n += threads) one(n);
        });
    };
    for (int t = 1; t < threads; t++) others.emplace_back(part, t);
    part(0);
    for (auto& other : others) other.join();
}

template <class Work>
bool with_group(long width, Work work) {  // 16 G pixels are convolved together
    switch (width / 32) {
        case 1: work(std::integral_constant<int, 2>{}); return true;
        case 2: work(std::integral_constant<int, 4>{}); return true;
        case 3: work(std::integral_constant<int, 6>{}); return true;
        case 4: work(std::integral_constant<int, 4>{}); return true;
        case 5: work(std::integral_constant<int, 5>{}); return true;
        case 6: work(std::integral_constant<int, 6>{}); return true;
        default: return false;
    }
}

std::vector<bf16> packed_weights(const float* w, bool turned) {
    std::vector<bf16> packed(CONVS * PACKED);
    for (int k = 0; k < CONVS; k++) pack(w + k * DW, packed.data() + k * PACKED, turned);
    return packed;
}

Saved of(const Shape& s, int n, bf16* maps, uint16_t* bits, float* means, float* weights) {
    const long channels = BLOCKS * C + WIDE;
    return {maps + n * MAPS * s.map, bits + n * BLOCKS * s.height * s.width, means + n * channels, weights + n * channels};
}

}  // namespace

extern "C" {

// Whether this process may use the matrix unit, if it is compiled for it; must be asked before anything else.
int usable() {
#ifdef __AMX_BF16__
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
#else
    return 1;
#endif
}

// Values of one picture's maps.
long saved_size(long height, long width) { return MAPS * Shape(height, width).map; }

// Values of a thread's gradients: dw (40, 3, 3, 16 in, 16 out), db (40, 16), channel (18, 96), pixel (19, 64), fusion (112)
// and its last bias' (48).
long gradient_size() { return CONVS * (DW + C) + BLOCKS * CHANNEL + (BLOCKS + 1) * PIXEL + FUSION + WIDE; }

// h and m: (pictures, height, width, 16); maps, bits, means and weights are kept for `backward`. 0 if it cannot be done.
int forward(int pictures, long height, long width, const Parameters* p, const bf16* h, bf16* maps, uint16_t* bits,
            float* means, float* weights, bf16* m0, bf16* m1, bf16* m2, bf16* answer, int threads) {
    const Shape s(height, width);
    const auto packed = packed_weights(p->w, false);
    const long size = height * width * C;
    return width % 32 == 0 && with_group(width, [&](auto group) {
        share(pictures, threads, [&](int, auto each) {
            each([&](int n) {
                bf16* m[3] = {m0 + n * size, m1 + n * size, m2 + n * size};
                forward_picture<group()>(s, *p, packed.data(), h + n * size, of(s, n, maps, bits, means, weights), m,
                                         answer + n * size);
            });
        });
    });
}

// g0 to g2: gradients of m, null if there are none, and `answer`, that of the answer; dh: that of h; grads: zeros
// (threads, gradient_size).
int backward(int pictures, long height, long width, const Parameters* p, bf16* maps, uint16_t* bits, float* means,
             float* weights, const bf16* g0, const bf16* g1, const bf16* g2, const bf16* answer, bf16* dh,
             float* grads, int threads) {
    const Shape s(height, width);
    const auto packed = packed_weights(p->w, true);
    const long size = height * width * C;
    return width % 32 == 0 && with_group(width, [&](auto group) {
        share(pictures, threads, [&](int t, auto each) {
            Scratch scratch(s);
            float* own = grads + t * gradient_size();
            Gradients into{own, own + CONVS * DW, nullptr, nullptr, nullptr};
            into.channel = into.db + CONVS * C;
            into.pixel = into.channel + BLOCKS * CHANNEL;
            into.fusion = into.pixel + (BLOCKS + 1) * PIXEL;
            each([&](int n) {
                const auto of_picture = [&](const bf16* g) { return g ? g + n * size : nullptr; };
                const bf16* gm[3] = {of_picture(g0), of_picture(g1), of_picture(g2)};
                backward_picture<group()>(s, *p, packed.data(), of(s, n, maps, bits, means, weights),
                                          answer + n * size, gm, dh + n * size, into, scratch);
            });
        });
    });
}
}
