// Products of stored weights with float32 inputs on x86 processors with AVX512 and its VNNI instructions.
//
// Integer weights lie in panels of sixteen rows: 64 bytes are four columns of each (eight of 4-bit weights), so that a
// vector of sums is sixteen rows and inputs are broadcast; no sum is ever added up across a vector. Codes are stored
// unsigned, which the instruction wants; what that adds is taken out in integers.
//
// A 16-bit input is 256 h + l with h and l of 8 bits: two exact products for one. Numbers as weights (bfloat16, float32)
// lie row by row. As at every level, the order of additions of a token does not depend on the tokens beside it.
#include "native_inputs.h"

#include <type_traits>

namespace {

using qtool::Product;

constexpr int kTokens = 8;         // at most, multiplied with a weight while it is in a register
constexpr int64_t kRows = 16;      // of a panel
constexpr int64_t kChunk = 2048;   // columns whose inputs of eight tokens stay in the first-level cache
constexpr int64_t kChunkWide = 1024;
constexpr int64_t kBlock = 32;     // rows a thread takes at a time, twice as many where each is used once
constexpr int64_t kAhead = 2048;   // bytes from a weight's use to the one to be fetched meanwhile
constexpr float kLargest = 32639;  // 127 * 256 + 127

using Place = Places<kTokens>;

template <int T = kTokens, typename Act>
inline void with_count(int count, const Act& act) {
  if constexpr (T == 1) act(std::integral_constant<int, 1>());
  else if (count == T) act(std::integral_constant<int, T>());
  else with_count<T - 1>(count, act);
}

inline __m512i load64(const void* from) { return _mm512_loadu_si512(from); }
inline __m512i broadcast(const void* from) {
  int32_t four;
  std::memcpy(&four, from, sizeof four);
  return _mm512_set1_epi32(four);
}
inline void fetch(const uint8_t* from) { _mm_prefetch(reinterpret_cast<const char*>(from), _MM_HINT_T0); }
inline __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1u);
}

// ---- inputs ----------------------------------------------------------------------------------------------------

// 16-bit codes of one token as quads of columns, four bytes l and four bytes h each; by group a scale and `bias` times
// the sum of its codes.
void encode16(const Product& p, int64_t token, int64_t step, int32_t bias, uint8_t* codes, float* scales,
              int32_t* sums) {
  const int64_t groups = p.padded / step;
  const Place place(token, p.tokens);
  const float* x = p.inputs + token * p.columns;
  const __m256i ones = _mm256_set1_epi16(1), half = _mm256_set1_epi16(128);
  alignas(64) int16_t group[128];
  alignas(64) uint8_t low[128], high[128];
  for (int64_t g = 0; g < groups; g++) {
    const int64_t count = std::clamp<int64_t>(p.columns - g * step, 0, step);
    const float top = largest(x + g * step, count);
    std::memset(group, 0, sizeof group);
    const int most = static_cast<int>(kLargest);
    if (top > 1e-30f) to_integers(x + g * step, count, group, top / kLargest, false, -most, most, 0);
    const int64_t at = place.at(g, 1, groups);
    scales[at] = top > 1e-30f ? top / kLargest : (top == top ? 1e-30f : NAN);
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < step / 16; i++) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(group) + i);
      _mm_store_si128(reinterpret_cast<__m128i*>(low) + i, _mm256_cvtepi16_epi8(v));
      const __m256i above = _mm256_srai_epi16(_mm256_add_epi16(v, half), 8);
      _mm_store_si128(reinterpret_cast<__m128i*>(high) + i, _mm256_cvtepi16_epi8(above));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(v, ones));
    }
    const __m128i pairs = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    const __m128i both = _mm_add_epi32(pairs, _mm_shuffle_epi32(pairs, 0x4e));
    sums[at] = bias * (_mm_cvtsi128_si32(both) + _mm_extract_epi32(both, 1));
    for (int64_t quad = 0; quad < step / 4; quad++) {
      uint8_t* to = codes + place.at(g * (step / 4) + quad, 8, p.padded * 2);
      std::memcpy(to, low + quad * 4, 4);
      std::memcpy(to + 4, high + quad * 4, 4);
    }
  }
}

// 8-bit codes of one token, zero point included, as quads of columns; the scale, and 128 times their sum.
float encode8(const Product& p, int64_t token, uint8_t* codes, int32_t* sum) {
  const Place place(token, p.tokens);
  const float* x = p.inputs + token * p.columns;
  const Range8 range(p, x);
  alignas(32) int16_t group[16];
  int32_t total = 0;
  for (int64_t i = 0; i < p.padded / 16; i++) {
    range.codes(x + i * 16, std::clamp<int64_t>(p.columns - i * 16, 0, 16), group);
    for (int c = 0; c < 16; c++) total += group[c] + range.zero;
    const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(group));
    alignas(16) uint8_t bytes[16];
    const __m256i whole = _mm256_add_epi16(v, _mm256_set1_epi16(static_cast<int16_t>(range.zero)));
    _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm256_cvtepi16_epi8(whole));
    for (int64_t quad = 0; quad < 4; quad++)
      std::memcpy(codes + place.at(i * 4 + quad, 4, p.padded), bytes + quad * 4, 4);
  }
  *sum = 128 * total;
  return range.scale;
}

// Float inputs of one token; `split`: in each block of 32 the even columns before the odd ones.
void encode_wide(const Product& p, int64_t token, bool split, float* wide) {
  const Place place(token, p.tokens);
  const float* x = p.inputs + token * p.columns;
  if (!split) {
    for (int64_t i = 0; i < p.padded / 16; i++) {
      const __mmask16 live = first_lanes(std::clamp<int64_t>(p.columns - i * 16, 0, 16));
      _mm512_storeu_ps(wide + place.at(i, 16, p.padded), _mm512_maskz_loadu_ps(live, x + i * 16));
    }
    return;
  }
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  for (int64_t i = 0; i < p.padded / 32; i++) {
    const int64_t left = p.columns - i * 32;
    const __m512 a = _mm512_maskz_loadu_ps(first_lanes(std::clamp<int64_t>(left, 0, 16)), x + i * 32);
    const __m512 b = _mm512_maskz_loadu_ps(first_lanes(std::clamp<int64_t>(left - 16, 0, 16)), x + i * 32 + 16);
    float* to = wide + place.at(i, 32, p.padded);
    _mm512_storeu_ps(to, _mm512_permutex2var_ps(a, even, b));
    _mm512_storeu_ps(to + 16, _mm512_permutex2var_ps(a, odd, b));
  }
}

// ---- panels of sixteen rows times tokens -----------------------------------------------------------------------

struct Inputs {  // of up to eight tokens, laid out as Place says
  const void* codes;
  const float* scales;  // by group
  const int32_t* sums;  // by group: minus what unsigned codes add; with zero points minus the sum of the inputs
};

// Where a panel's results go: `live` of its rows are there.
struct Target {
  float* output;
  int64_t stride;
  __mmask16 live;
};

// Sums that wait for each other are few where tokens are few: then quads of columns take turns with several.
constexpr int sets_of(int tokens, int most) { return tokens == 1 ? most : tokens <= 3 ? most / 2 : 1; }

// Columns from..to of a panel with T tokens, added to what `target` holds from earlier columns: 16-bit inputs.
template <int BITS, int STEP, bool ZEROS, int T>
[[gnu::noinline]] void panel16(const Product& p, const Inputs& in, int64_t panel, int64_t from, int64_t to,
                               const Target& target) {
  constexpr int BYTES = BITS * kRows / 8, SETS = sets_of(T, 4), UNROLL = SETS > 2 ? SETS : 2;
  const int64_t groups = p.padded / STEP;
  const uint8_t* w = p.codes + (panel * p.padded + from) * BYTES;
  const uint8_t* x = static_cast<const uint8_t*>(in.codes) + from * 2 * T;
  const float* scales = in.scales + from / STEP * T;
  const int32_t* sums = in.sums + from / STEP * T;
  const int64_t place = p.per_row ? panel * kRows : (panel * groups + from / STEP) * kRows;
  const float* weight_scales = p.scales + place;
  const int32_t* zeros = ZEROS ? p.zeros + place : nullptr;
  const int64_t next = p.per_row ? 0 : kRows;
  __m512 total[T];
  for (int t = 0; t < T; t++)
    total[t] = from ? _mm512_maskz_loadu_ps(target.live, target.output + t * target.stride) : _mm512_setzero_ps();
  for (int64_t left = (to - from) / STEP; left; left--) {
    __m512i low[SETS][T], high[SETS][T];
    for (int s = 0; s < SETS; s++)
      for (int t = 0; t < T; t++) low[s][t] = high[s][t] = _mm512_setzero_si512();
    for (int t = 0; t < T; t++) {
      low[0][t] = _mm512_set1_epi32(sums[t]);
      if (ZEROS) low[0][t] = _mm512_mullo_epi32(low[0][t], load64(zeros));
    }
    for (int quad = 0; quad < STEP / 4; quad += UNROLL) {
      __m512i v[UNROLL];
#pragma GCC unroll 4
      for (int u = 0; u < UNROLL; u++) {
        if (BITS == 8) {
          v[u] = load64(w + u * 64);
        } else if (u % 2 == 0) {
          const __m512i both = load64(w + u * 32);
          v[u] = _mm512_and_si512(both, _mm512_set1_epi8(15));
          v[u + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), _mm512_set1_epi8(15));
        }
        if (BITS == 8 || u % 2 == 0) fetch(w + kAhead + u * 4 * BYTES);
      }
      w += UNROLL * 4 * BYTES;
#pragma GCC unroll 4
      for (int u = 0; u < UNROLL; u++)
        for (int t = 0; t < T; t++) {
          const uint8_t* own = x + (u * T + t) * 8;
          low[u % SETS][t] = _mm512_dpbusd_epi32(low[u % SETS][t], v[u], broadcast(own));
          high[u % SETS][t] = _mm512_dpbusd_epi32(high[u % SETS][t], v[u], broadcast(own + 4));
        }
      x += UNROLL * T * 8;
    }
    const __m512 weight_scale = _mm512_loadu_ps(weight_scales);
    for (int t = 0; t < T; t++) {
      for (int s = 1; s < SETS; s++) {
        low[0][t] = _mm512_add_epi32(low[0][t], low[s][t]);
        high[0][t] = _mm512_add_epi32(high[0][t], high[s][t]);
      }
      const __m512i sum = _mm512_add_epi32(low[0][t], _mm512_slli_epi32(high[0][t], 8));
      const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(scales[t]));
      total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, total[t]);
    }
    weight_scales += next;
    if (ZEROS) zeros += next;
    scales += T, sums += T;
  }
  for (int t = 0; t < T; t++) _mm512_mask_storeu_ps(target.output + t * target.stride, target.live, total[t]);
}

// The same for 8-bit inputs: exact integers, made numbers after the last column.
template <int T>
[[gnu::noinline]] void panel8(const Product& p, const Inputs& in, int64_t panel, int64_t from, int64_t to,
                              const Target& target) {
  constexpr int SETS = sets_of(T, 8), UNROLL = SETS > 4 ? 8 : 4;
  const uint8_t* w = p.codes + (panel * p.padded + from) * kRows;
  const uint8_t* x = static_cast<const uint8_t*>(in.codes) + from * T;
  __m512i sum[SETS][T];
  for (int s = 0; s < SETS; s++)
    for (int t = 0; t < T; t++) sum[s][t] = _mm512_setzero_si512();
  for (int t = 0; t < T; t++) {
    if (from) sum[0][t] = _mm512_maskz_loadu_epi32(target.live, target.output + t * target.stride);
    else sum[0][t] = _mm512_set1_epi32(-in.sums[t]);
  }
  for (int64_t quad = (to - from) / 4; quad; quad -= UNROLL) {
    for (int u = 0; u < UNROLL; u++) fetch(w + kAhead + u * 64);
#pragma GCC unroll 8
    for (int u = 0; u < UNROLL; u++) {
      const __m512i v = load64(w + u * 64);
      for (int t = 0; t < T; t++)
        sum[u % SETS][t] = _mm512_dpbusd_epi32(sum[u % SETS][t], v, broadcast(x + (u * T + t) * 4));
    }
    w += UNROLL * 64;
    x += UNROLL * T * 4;
  }
  for (int t = 0; t < T; t++)
    for (int s = 1; s < SETS; s++) sum[0][t] = _mm512_add_epi32(sum[0][t], sum[s][t]);
  if (to < p.padded) {
    for (int t = 0; t < T; t++) _mm512_mask_storeu_epi32(target.output + t * target.stride, target.live, sum[0][t]);
    return;
  }
  const __m512 weight_scale = _mm512_loadu_ps(p.scales + panel * kRows);
  const __m512i zero = _mm512_set1_epi32(p.input_zero), weights = load64(p.zeros + panel * kRows);
  for (int t = 0; t < T; t++) {
    const __m512i exact = _mm512_sub_epi32(sum[0][t], _mm512_mullo_epi32(zero, weights));
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), weight_scale);
    _mm512_mask_storeu_ps(target.output + t * target.stride, target.live,
                          _mm512_mul_ps(scaled, _mm512_set1_ps(in.scales[t])));
  }
}

// Lets the threads of the calling team take blocks of rows, after the inputs were encoded. `panel(count, token, panel,
// from, to, target)` multiplies one panel with the `count` tokens that follow `token`.
template <typename Encode, typename Panel>
void by_panels(const Product& p, const Encode& encode, const Panel& panel) {
#pragma omp for schedule(static)
  for (int64_t token = 0; token < p.tokens; token++) encode(token);
  const bool few = p.tokens <= kTokens;
  const int64_t panels = (p.rows + kRows - 1) / kRows, size = (few ? 2 * kBlock : kBlock) / kRows;
  const int64_t chunk = few ? p.padded : kChunk;
#pragma omp for schedule(dynamic)
  for (int64_t first = 0; first < panels; first += size) {
    const int64_t last = std::min(first + size, panels);
    for (int64_t from = 0; from < p.padded; from += chunk)
      for (int64_t token = 0; token < p.tokens; token += kTokens)
        for (int64_t i = first; i < last; i++) {
          const Target target{p.output + token * p.stride + i * kRows, p.stride, first_lanes(p.rows - i * kRows)};
          const int count = static_cast<int>(std::min<int64_t>(kTokens, p.tokens - token));
          panel(count, token, i, from, std::min(from + chunk, p.padded), target);
        }
  }
}

template <int BITS, int STEP, bool ZEROS>
void product16(const Product& p) {
  const int64_t groups = p.padded / STEP;
  uint8_t* codes = static_cast<uint8_t*>(p.scratch);
  int32_t* sums = reinterpret_cast<int32_t*>(codes + p.tokens * p.padded * 2);
  float* scales = reinterpret_cast<float*>(sums + p.tokens * groups);
  const int32_t bias = ZEROS ? -1 : BITS == 4 ? -8 : -128;
  by_panels(
      p, [&](int64_t token) { encode16(p, token, STEP, bias, codes, scales, sums); },
      [&](int count, int64_t token, int64_t panel, int64_t from, int64_t to, const Target& target) {
        const Inputs in{codes + token * p.padded * 2, scales + token * groups, sums + token * groups};
        with_count(count, [&](auto t) { panel16<BITS, STEP, ZEROS, t()>(p, in, panel, from, to, target); });
      });
}

template <int BITS, int STEP>
void with_zeros(const Product& p) {
  p.zeros ? product16<BITS, STEP, true>(p) : product16<BITS, STEP, false>(p);
}

void product8(const Product& p) {
  uint8_t* codes = static_cast<uint8_t*>(p.scratch);
  int32_t* sums = reinterpret_cast<int32_t*>(codes + p.tokens * p.padded);
  float* scales = reinterpret_cast<float*>(sums + p.tokens);
  by_panels(
      p, [&](int64_t token) { scales[token] = encode8(p, token, codes, sums + token); },
      [&](int count, int64_t token, int64_t panel, int64_t from, int64_t to, const Target& target) {
        const Inputs in{codes + token * p.padded, scales + token, sums + token};
        with_count(count, [&](auto t) { panel8<t()>(p, in, panel, from, to, target); });
      });
}

// ---- rows of numbers times tokens ------------------------------------------------------------------------------

inline __m512 add_pairs(__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }

inline __m512 add_fours(const __m512* v) {  // four vectors: their sums within each quarter, side by side
  const __m512d a = _mm512_castps_pd(add_pairs(v[0], v[1])), b = _mm512_castps_pd(add_pairs(v[2], v[3]));
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
}

inline __m512 add_quarters(__m512 a, __m512 b, bool last) {
  return last ? _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd))
              : _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}

// The sums of COUNT vectors, at most sixteen; every one is added up in the same order.
template <int COUNT>
inline void sum_each(const __m512* v, float* sums) {
  __m512 padded[16], fours[4];
  for (int i = 0; i < 16; i++) padded[i] = i < COUNT ? v[i] : _mm512_setzero_ps();
  for (int i = 0; i < 4; i++) fours[i] = i * 4 < COUNT ? add_fours(padded + i * 4) : _mm512_setzero_ps();
  const __m512 first = add_quarters(fours[0], fours[1], false), second = add_quarters(fours[2], fours[3], false);
  _mm512_storeu_ps(sums, add_quarters(first, second, true));
}

// The next numbers of a row as vectors: of bfloat16 the even and the odd columns of 32, of float32 sixteen columns.
inline void widen(const uint16_t* from, __m512* v) {
  const __m512i both = load64(from);
  v[0] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
  v[1] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}
inline void widen(const float* from, __m512* v) { v[0] = _mm512_loadu_ps(from); }

// R rows with T tokens: output[t * stride + r], added to what is there after the first columns.
template <typename W, int R, int T>
[[gnu::noinline]] void rows_wide(const Product& p, const float* inputs, int64_t row, int64_t from, int64_t to,
                                 float* output) {
  constexpr int PARTS = 4 / sizeof(W), WIDTH = 16 * PARTS;
  const W* w = reinterpret_cast<const W*>(p.codes) + row * p.padded + from;
  const float* x = inputs + from * T;
  __m512 sum[R * T];
  for (int i = 0; i < R * T; i++) sum[i] = _mm512_setzero_ps();
  for (int64_t left = (to - from) / WIDTH; left; left--, w += WIDTH, x += WIDTH * T) {
    __m512 v[R][PARTS];
    for (int r = 0; r < R; r++) {
      widen(w + r * p.padded, v[r]);
      fetch(reinterpret_cast<const uint8_t*>(w + r * p.padded) + kAhead);
    }
    for (int part = 0; part < PARTS; part++)
      for (int t = 0; t < T; t++) {
        const __m512 own = _mm512_loadu_ps(x + t * WIDTH + part * 16);
        for (int r = 0; r < R; r++) sum[t * R + r] = _mm512_fmadd_ps(v[r][part], own, sum[t * R + r]);
      }
  }
  alignas(64) float sums[16];
  sum_each<R * T>(sum, sums);
  for (int t = 0; t < T; t++)
    for (int r = 0; r < R; r++) {
      float& cell = output[t * p.stride + r];
      cell = from ? cell + sums[t * R + r] : sums[t * R + r];
    }
}

template <typename W>
void product_wide(const Product& p) {
  float* wide = static_cast<float*>(p.scratch);
#pragma omp for schedule(static)
  for (int64_t token = 0; token < p.tokens; token++) encode_wide(p, token, sizeof(W) == 2, wide);
  const auto stretch = [&](int64_t token, int64_t first, int64_t last, int64_t from) {
    const int64_t to = std::min(from + kChunkWide, p.padded);
    const float* inputs = wide + token * p.padded;
    float* output = p.output + token * p.stride;
    with_count(static_cast<int>(std::min<int64_t>(kTokens, p.tokens - token)), [&](auto count) {
      constexpr int T = count(), R = T <= 4 ? 4 : 2;
      int64_t row = first;
      for (; row + R <= last; row += R) rows_wide<W, R, T>(p, inputs, row, from, to, output + row);
      for (; row < last; row++) rows_wide<W, 1, T>(p, inputs, row, from, to, output + row);
    });
  };
  const bool few = p.tokens <= kTokens;
  const int64_t size = few ? 2 * kBlock : kBlock;
#pragma omp for schedule(dynamic)
  for (int64_t first = 0; first < p.rows; first += size) {
    const int64_t last = std::min(first + size, p.rows);
    if (few) {  // weights are read once, in long streams; the same order of additions as below
      for (int64_t row = first; row < last; row += 4)
        for (int64_t from = 0; from < p.padded; from += kChunkWide)
          stretch(0, row, std::min(row + 4, last), from);
      continue;
    }
    for (int64_t from = 0; from < p.padded; from += kChunkWide)
      for (int64_t token = 0; token < p.tokens; token += kTokens) stretch(token, first, last, from);
  }
}

// ---- panels as numbers -----------------------------------------------------------------------------------------

// Byte k of each row's four columns, 0..255.
inline __m512i column(__m512i quad, int k) {
  return _mm512_and_si512(_mm512_srlv_epi32(quad, _mm512_set1_epi32(8 * k)), _mm512_set1_epi32(255));
}

inline void store_bfloat16(uint16_t* to, __m512 v) {  // to the nearest, of two the even one; scales are finite
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
}

template <int BITS>
void widen_panel(const Product& p, int64_t step, int64_t panel, uint16_t* to, int64_t stride) {
  const int64_t groups = p.padded / step;
  const uint8_t* w = p.codes + panel * p.padded * (BITS * kRows / 8);
  for (int64_t quad = 0; quad < p.padded / 4; quad++) {
    const int64_t place = (p.per_row ? panel : panel * groups + quad * 4 / step) * kRows;
    const __m512 scale = _mm512_loadu_ps(p.scales + place);
    const __m512i zero = p.zeros ? load64(p.zeros + place) : _mm512_set1_epi32(1 << (BITS - 1));
    __m512i v = load64(w + (BITS == 8 ? quad : quad / 2) * 64);
    if (BITS == 4) v = _mm512_and_si512(quad % 2 ? _mm512_srli_epi16(v, 4) : v, _mm512_set1_epi8(15));
    for (int k = 0; k < 4; k++) {
      const __m512 number = _mm512_cvtepi32_ps(_mm512_sub_epi32(column(v, k), zero));
      store_bfloat16(to + (quad * 4 + k) * stride, _mm512_mul_ps(number, scale));
    }
  }
}

void codes_of_panel(const Product& p, int64_t panel, int8_t* to, int64_t stride) {
  const uint8_t* w = p.codes + panel * p.padded * kRows;
  for (int64_t quad = 0; quad < p.padded / 4; quad++)
    for (int k = 0; k < 4; k++) {
      const __m512i code = _mm512_sub_epi32(column(load64(w + quad * 64), k), _mm512_set1_epi32(128));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + (quad * 4 + k) * stride), _mm512_cvtepi32_epi8(code));
    }
}

}  // namespace

int qtool::widen_avx512(const Product& p, int kind, int step, int64_t first, int64_t last, void* to, int64_t stride) {
  if (kind != 104 && kind != 108 && kind != 188) return 1;
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t panel = first; panel < last; panel++) {
    const int64_t at = (panel - first) * kRows;
    if (kind == 188) codes_of_panel(p, panel, static_cast<int8_t*>(to) + at, stride);
    else if (kind == 108) widen_panel<8>(p, step, panel, static_cast<uint16_t*>(to) + at, stride);
    else widen_panel<4>(p, step, panel, static_cast<uint16_t*>(to) + at, stride);
  }
  return 0;
}

// kind: 104 and 108 are 16-bit inputs and panels of 4- and 8-bit weights, 188 is 8-bit inputs and panels of 8-bit
// weights, 16 and 32 are rows of bfloat16 and float32 weights.
int qtool::multiply_avx512(const Product& p, int kind, int step) {
  if (kind == 104 && step == 32) with_zeros<4, 32>(p);
  else if (kind == 104 && step == 64) with_zeros<4, 64>(p);
  else if (kind == 104 && step == 128) with_zeros<4, 128>(p);
  else if (kind == 108 && step == 32) with_zeros<8, 32>(p);
  else if (kind == 108 && step == 64) with_zeros<8, 64>(p);
  else if (kind == 108 && step == 128) with_zeros<8, 128>(p);
  else if (kind == 188) product8(p);
  else if (kind == 16) product_wide<uint16_t>(p);
  else if (kind == 32) product_wide<float>(p);
  else return 1;
  return 0;
}
