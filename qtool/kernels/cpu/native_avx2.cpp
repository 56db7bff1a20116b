// Products of stored weights with float32 inputs on x86 processors with AVX2 and FMA. No library but OpenMP.
//
// One inner loop serves every number of tokens: a stored row is unpacked in registers and multiplied with up to four
// tokens at once. The order of additions does not depend on how many tokens there are, so that a token's result is the
// same bits whoever shares the batch, and whatever the number of threads.
//
// 16-bit inputs: every `step` columns of a token become 16-bit integers with one scale. The error is at most 2^-16 of
// the largest of those columns, less than what rounding that one to bfloat16 costs; sums are exact integers.
// 8-bit inputs: the codes that compressed-tensors defines, as 16-bit integers; no sum can saturate.
#include "native_inputs.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace {

using qtool::Product;
using qtool::load;
using qtool::store;
using qtool::sum_lanes;

constexpr int64_t kChunk = 2048;  // columns whose inputs of four tokens stay in the first-level cache
constexpr int64_t kBlock = 32;    // rows a thread takes at a time, twice as many where each is used once
constexpr int64_t kAhead = 2048;  // bytes from a single token's use of a weight to the one to be fetched meanwhile
constexpr int kTokens = 4;  // at most, multiplied with a weight while it is in a register; eight were slower
constexpr int kRows = 4;    // at most, multiplied with one stretch of inputs

// Sums of the lanes of T vectors, T at most four; the order of additions does not depend on T.
template <int T>
inline void sum_each(const __m256* v, float* sums) {
  const __m256 none = _mm256_setzero_ps();
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(v[0], T > 1 ? v[1] : none),
                                      _mm256_hadd_ps(T > 2 ? v[2] : none, T > 3 ? v[3] : none));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}

template <int T>
inline void sum_each(const __m256i* v, int32_t* sums) {
  const __m256i none = _mm256_setzero_si256();
  const __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], T > 1 ? v[1] : none),
                                          _mm256_hadd_epi32(T > 2 ? v[2] : none, T > 3 ? v[3] : none));
  const __m128i both = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), both);
}

// act(constant) with the constant that equals `count`, 1 to kTokens.
template <int T = kTokens, typename Act>
inline void with_count(int count, const Act& act) {
  if constexpr (T == 1) act(std::integral_constant<int, 1>());
  else if (count == T) act(std::integral_constant<int, T>());
  else with_count<T - 1>(count, act);
}

// ---- inputs ----------------------------------------------------------------------------------------------------

using Place = Places<kTokens>;

// 16-bit codes of one token, a scale for each group, and, unless null, minus the sums of its codes by vector lane.
void encode16(const Product& p, int64_t token, int64_t step, int16_t* codes, float* scales, int32_t* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  const int64_t groups = p.padded / step;
  const Place place(token, p.tokens);
  const float* x = p.inputs + token * p.columns;
  alignas(32) int16_t group[128];
  for (int64_t g = 0; g < groups; g++) {
    const int64_t count = std::clamp<int64_t>(p.columns - g * step, 0, step);
    const float top = largest(x + g * step, count);
    std::memset(group, 0, sizeof group);
    if (top > 1e-30f) to_integers(x + g * step, count, group, top / 32767.0f, false, -32767, 32767, 0);
    scales[place.at(g, 1, groups)] = top > 1e-30f ? top / 32767.0f : (top == top ? 1e-30f : NAN);
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < step / 16; i++) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(group) + i);
      store(codes + place.at(g * (step / 16) + i, 16, p.padded), v);
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(v, ones));
    }
    if (sums) store(sums + place.at(g, 8, groups * 8), _mm256_sub_epi32(_mm256_setzero_si256(), sum));
  }
}

// 8-bit codes less their zero point, of one token; the scale. Padded columns hold 0.
float encode8(const Product& p, int64_t token, int16_t* codes) {
  const Place place(token, p.tokens);
  const float* x = p.inputs + token * p.columns;
  const Range8 range(p, x);
  alignas(32) int16_t group[16];
  for (int64_t i = 0; i < p.padded / 16; i++) {
    range.codes(x + i * 16, std::clamp<int64_t>(p.columns - i * 16, 0, 16), group);
    store(codes + place.at(i, 16, p.padded), _mm256_load_si256(reinterpret_cast<const __m256i*>(group)));
  }
  return range.scale;
}

// Float inputs of one token; `split`: in each block of sixteen the even columns before the odd ones.
void encode_wide(const Product& p, int64_t token, bool split, float* wide) {
  const Place place(token, p.tokens);
  const float* x = p.inputs + token * p.columns;
  float block[16];
  for (int64_t i = 0; i < p.padded / 16; i++, x += 16) {
    const int64_t count = std::clamp<int64_t>(p.columns - i * 16, 0, 16);
    const float* source = x;
    if (count < 16) {
      std::memset(block, 0, sizeof block);
      if (count > 0) std::memcpy(block, x, count * sizeof(float));
      source = block;
    }
    const __m256 a = _mm256_loadu_ps(source), b = _mm256_loadu_ps(source + 8);
    float* to = wide + place.at(i, 16, p.padded);
    if (!split) {
      _mm256_storeu_ps(to, a);
      _mm256_storeu_ps(to + 8, b);
      continue;
    }
    const auto ordered = [](__m256 v) {
      return _mm256_castps_si256(_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8)));
    };
    store(to, ordered(_mm256_shuffle_ps(a, b, 0x88)));
    store(to + 8, ordered(_mm256_shuffle_ps(a, b, 0xdd)));
  }
}

// ---- weights ---------------------------------------------------------------------------------------------------

// How weights are stored: integers of 4 or 8 bits, or 4-bit places in a book of sixteen 16-bit numbers.
enum Form { kInt4, kInt8, kBook };

constexpr int bits_of(Form form) { return form == kInt8 ? 8 : 4; }

// PART columns of a row as vectors of sixteen 16-bit integers, in column order. Signs are extended by shifts.
template <Form FORM, int PART>
struct Unpack;

template <int PART>
struct Unpack<kInt8, PART> {
  const uint8_t* w;
  Unpack(const uint8_t* from, const Product&) : w(from) {}
  __m256i at(int i) const { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(w + 16 * i))); }
};

template <>
struct Unpack<kInt4, 64> {  // 16-bit lane j holds columns j, 16 + j, 32 + j, 48 + j
  __m256i x;
  Unpack(const uint8_t* from, const Product&) : x(load(from)) {}
  __m256i at(int i) const { return _mm256_srai_epi16(i < 3 ? _mm256_slli_epi16(x, 12 - 4 * i) : x, 12); }
};

template <>
struct Unpack<kInt4, 32> {  // byte j holds columns j and 16 + j
  __m256i x;
  Unpack(const uint8_t* from, const Product&) : x(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)from))) {}
  __m256i at(int i) const { return i == 0 ? _mm256_srai_epi16(_mm256_slli_epi16(x, 12), 12) : _mm256_srai_epi16(x, 4); }
};

template <>
struct Unpack<kBook, 64> {  // byte 2 j holds columns j and 32 + j, byte 2 j + 1 columns 16 + j and 48 + j
  __m256i x, low, high;     // the low and the high bytes of the book
  Unpack(const uint8_t* from, const Product& p) : x(load(from)) {
    const __m128i first = _mm_loadu_si128((const __m128i*)p.book), last = _mm_loadu_si128((const __m128i*)(p.book + 8));
    const __m128i byte = _mm_set1_epi16(255);
    low = _mm256_broadcastsi128_si256(_mm_packus_epi16(_mm_and_si128(first, byte), _mm_and_si128(last, byte)));
    high = _mm256_broadcastsi128_si256(_mm_packus_epi16(_mm_srli_epi16(first, 8), _mm_srli_epi16(last, 8)));
  }
  __m256i at(int i) const {
    const __m256i places = _mm256_and_si256(i < 2 ? x : _mm256_srli_epi16(x, 4), _mm256_set1_epi8(15));
    const __m256i a = _mm256_shuffle_epi8(low, places), b = _mm256_shuffle_epi8(high, places);
    if (i % 2 == 0) return _mm256_or_si256(_mm256_and_si256(a, _mm256_set1_epi16(255)), _mm256_slli_epi16(b, 8));
    return _mm256_or_si256(_mm256_srli_epi16(a, 8), _mm256_andnot_si256(_mm256_set1_epi16(255), b));
  }
};

// ---- rows times tokens -----------------------------------------------------------------------------------------

struct Inputs {  // of up to four tokens, laid out as Place says
  const void* codes;
  const float* scales;  // by group
  const int32_t* sums;  // by group: minus the sum of its codes; null without zero points
};

// Computed here and now: left alone, the compiler starts every product first and runs out of registers for the sums.
inline void settle(__m256i& v) { asm volatile("" : "+x"(v)); }

inline void fetch(const uint8_t* from) { _mm_prefetch(reinterpret_cast<const char*>(from), _MM_HINT_T0); }

// Sums over columns from..to of one row with T tokens: 16-bit inputs. A function of its own, as the two below: among the
// code of its callers its sums would not stay in registers.
template <Form FORM, int STEP, bool ZEROS, int T>
[[gnu::noinline]] void row16(const Product& p, const Inputs& in, int64_t row, int64_t from, int64_t to, float* sum) {
  constexpr int PART = STEP == 32 ? 32 : 64, BITS = bits_of(FORM);
  const int64_t groups = p.padded / STEP;
  const uint8_t* w = p.codes + row * (p.padded * BITS / 8) + from * BITS / 8;
  const int16_t* x = static_cast<const int16_t*>(in.codes) + from * T;
  const float* scales = in.scales + from / STEP * T;
  const int32_t* sums = ZEROS ? in.sums + from / STEP * T * 8 : nullptr;
  const float* weight_scales = p.scales + (p.per_row ? row : row * groups + from / STEP);
  const int32_t* zeros = ZEROS ? p.zeros + (p.per_row ? row : row * groups + from / STEP) : nullptr;
  const int64_t next = p.per_row ? 0 : 1;
  __m256 total[T];
  for (int t = 0; t < T; t++) total[t] = _mm256_setzero_ps();
  for (int64_t left = (to - from) / STEP; left; left--) {
    __m256i acc[T];
    if (ZEROS) {
      const __m256i zero = _mm256_set1_epi32(*zeros);
      for (int t = 0; t < T; t++) acc[t] = _mm256_mullo_epi32(load(sums + t * 8), zero);
      zeros += next;
      sums += T * 8;
    } else {
      for (int t = 0; t < T; t++) acc[t] = _mm256_setzero_si256();
    }
    for (int part = 0; part < STEP / PART; part++, w += PART * BITS / 8, x += PART * T) {
      if (T == 1) fetch(w + kAhead);
      const Unpack<FORM, PART> unpacked(w, p);
#pragma GCC unroll 8
      for (int i = 0; i < PART / 16; i++) {
        const __m256i v = unpacked.at(i);
        for (int t = 0; t < T; t++) {
          acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(v, load(x + (i * T + t) * 16)));
          settle(acc[t]);
        }
      }
    }
    const __m256 weight_scale = _mm256_broadcast_ss(weight_scales);
    for (int t = 0; t < T; t++) {
      const __m256 scale = _mm256_mul_ps(weight_scale, _mm256_broadcast_ss(scales + t));
      total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[t]), scale, total[t]);
    }
    weight_scales += next;
    scales += T;
  }
  sum_each<T>(total, sum);
}

// The same for 8-bit inputs: exact integers.
template <int T>
[[gnu::noinline]] void row8(const Product& p, const Inputs& in, int64_t row, int64_t from, int64_t to, int32_t* sum) {
  const uint8_t* w = p.codes + row * p.padded + from;
  const int16_t* x = static_cast<const int16_t*>(in.codes) + from * T;
  __m256i acc[T];
  for (int t = 0; t < T; t++) acc[t] = _mm256_setzero_si256();
  for (int64_t left = (to - from) / 32; left; left--, w += 32, x += 32 * T) {
    if (T == 1) fetch(w + kAhead);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      const __m256i v = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * i)));
      for (int t = 0; t < T; t++) {
        acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(v, load(x + (i * T + t) * 16)));
        settle(acc[t]);
      }
    }
  }
  sum_each<T>(acc, sum);
}

// Sixteen stored numbers as two vectors: of bfloat16 the even and the odd ones, of float32 the first and last eight.
inline void widen(const uint16_t* from, __m256& a, __m256& b) {
  const __m256i v = load(from);
  a = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
  b = _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}
inline void widen(const float* from, __m256& a, __m256& b) {
  a = _mm256_loadu_ps(from);
  b = _mm256_loadu_ps(from + 8);
}

// Weights that are numbers, float32 inputs; R rows, sums[r * kTokens + t]: several, because the products of one wait for
// each other.
template <typename W, int R, int T>
[[gnu::noinline]] void rows_wide(const Product& p, const Inputs& in, int64_t row, int64_t from, int64_t to,
                                 float* sum) {
  const W* w = reinterpret_cast<const W*>(p.codes) + row * p.padded + from;
  const float* x = static_cast<const float*>(in.codes) + from * T;
  __m256 acc[R][T];
  for (int r = 0; r < R; r++)
    for (int t = 0; t < T; t++) acc[r][t] = _mm256_setzero_ps();
  for (int64_t left = (to - from) / 16; left; left--, w += 16, x += 16 * T) {
    __m256 a[R], b[R];
    for (int r = 0; r < R; r++) widen(w + r * p.padded, a[r], b[r]);
    for (int t = 0; t < T; t++) {
      const __m256 first = _mm256_loadu_ps(x + t * 16), second = _mm256_loadu_ps(x + t * 16 + 8);
      for (int r = 0; r < R; r++) acc[r][t] = _mm256_fmadd_ps(a[r], first, acc[r][t]);
      for (int r = 0; r < R; r++) acc[r][t] = _mm256_fmadd_ps(b[r], second, acc[r][t]);
    }
  }
  for (int r = 0; r < R; r++) sum_each<T>(acc[r], sum + r * kTokens);
}

// Every row of a block with every token, chunk of columns by chunk. `dot(T, R, token, row, from, to, sums)` gives sums
// of the T tokens that follow `token` with the R rows that follow `row`; R is `most` or 1.
template <typename Sum, typename Dot>
void block(const Product& p, int64_t first, int64_t last, int most, const Dot& dot) {
  static_assert(sizeof(Sum) == sizeof(float), "partial sums live in the output");
  Sum* output = reinterpret_cast<Sum*>(p.output);
  const auto part = [&](int64_t token, int64_t row, int rows, int64_t from) {
    Sum sums[kRows * kTokens] = {};
    const int count = static_cast<int>(std::min<int64_t>(kTokens, p.tokens - token));
    dot(count, rows, token, row, from, std::min(from + kChunk, p.padded), sums);
    for (int t = 0; t < count; t++)
      for (int r = 0; r < rows; r++) {
        Sum& cell = output[(token + t) * p.stride + row + r];
        cell = from == 0 ? sums[r * kTokens + t] : static_cast<Sum>(cell + sums[r * kTokens + t]);
      }
  };
  const auto each = [&](const auto& act) {
    int64_t row = first;
    for (; row + most <= last; row += most) act(row, most);
    for (; row < last; row++) act(row, 1);
  };
  if (p.tokens <= kTokens) {  // weights are read once, in long streams; the same order of additions as below
    each([&](int64_t row, int rows) {
      for (int64_t from = 0; from < p.padded; from += kChunk) part(0, row, rows, from);
    });
    return;
  }
  for (int64_t from = 0; from < p.padded; from += kChunk)
    for (int64_t token = 0; token < p.tokens; token += kTokens)
      each([&](int64_t row, int rows) { part(token, row, rows, from); });
}

// Encodes the inputs, then lets the threads of the calling team take blocks of rows. `finish(first, last)` follows each
// block.
template <typename Sum, typename Encode, typename Dot, typename Finish>
void multiply(const Product& p, int most, const Encode& encode, const Dot& dot, const Finish& finish) {
#pragma omp for schedule(static)
  for (int64_t token = 0; token < p.tokens; token++) encode(token);
  const int64_t size = p.tokens <= kTokens ? 2 * kBlock : kBlock;
#pragma omp for schedule(dynamic)
  for (int64_t first = 0; first < p.rows; first += size) {
    const int64_t last = std::min(first + size, p.rows);
    block<Sum>(p, first, last, most, dot);
    finish(first, last);
  }
}

template <Form FORM, int STEP, bool ZEROS>
void product16(const Product& p) {
  const int64_t groups = p.padded / STEP;
  int16_t* codes = static_cast<int16_t*>(p.scratch);  // first: whole vectors from an aligned start
  int32_t* sums = ZEROS ? reinterpret_cast<int32_t*>(codes + p.tokens * p.padded) : nullptr;
  float* scales = reinterpret_cast<float*>(codes + p.tokens * p.padded) + (ZEROS ? p.tokens * groups * 8 : 0);
  multiply<float>(
      p, 1, [&](int64_t token) { encode16(p, token, STEP, codes, scales, sums); },
      [&](int count, int, int64_t token, int64_t row, int64_t from, int64_t to, float* sum) {
        const Inputs in{codes + token * p.padded, scales + token * groups, ZEROS ? sums + token * groups * 8 : nullptr};
        with_count(count, [&](auto tokens) { row16<FORM, STEP, ZEROS, tokens()>(p, in, row, from, to, sum); });
      },
      [](int64_t, int64_t) {});
}

template <Form FORM, int STEP>
void with_zeros(const Product& p) {
  p.zeros ? product16<FORM, STEP, true>(p) : product16<FORM, STEP, false>(p);
}

void product8(const Product& p) {
  int16_t* codes = static_cast<int16_t*>(p.scratch);
  float* scales = reinterpret_cast<float*>(codes + p.tokens * p.padded);
  multiply<int32_t>(
      p, 1, [&](int64_t token) { scales[token] = encode8(p, token, codes); },
      [&](int count, int, int64_t token, int64_t row, int64_t from, int64_t to, int32_t* sum) {
        const Inputs in{codes + token * p.padded, nullptr, nullptr};
        with_count(count, [&](auto tokens) { row8<tokens()>(p, in, row, from, to, sum); });
      },
      [&](int64_t first, int64_t last) {
        for (int64_t token = 0; token < p.tokens; token++)
          for (int64_t row = first; row < last; row++) {
            float* cell = p.output + token * p.stride + row;
            int32_t exact;
            std::memcpy(&exact, cell, sizeof exact);
            *cell = static_cast<float>(exact) * p.scales[row] * scales[token];
          }
      });
}

template <typename W>
void product_wide(const Product& p) {
  float* wide = static_cast<float*>(p.scratch);
  multiply<float>(
      p, p.tokens == 1 ? 4 : 2,
      [&](int64_t token) { encode_wide(p, token, sizeof(W) == 2, wide); },
      [&](int count, int rows, int64_t token, int64_t row, int64_t from, int64_t to, float* sum) {
        const Inputs in{wide + token * p.padded, nullptr, nullptr};
        with_count(count, [&](auto tokens) {
          if (rows == 4) rows_wide<W, 4, 1>(p, in, row, from, to, sum);  // one token
          else if (rows == 2) rows_wide<W, 2, tokens()>(p, in, row, from, to, sum);
          else rows_wide<W, 1, tokens()>(p, in, row, from, to, sum);
        });
      },
      [](int64_t, int64_t) {});
}

}  // namespace

// kind: 4 and 8 are 16-bit inputs and weights of that many bits, 44 is 16-bit inputs and 4-bit places in a book, 88 is
// 8-bit inputs and weights, 16 is bfloat16 weights with float32 inputs, 32 is float32 weights and inputs.
int qtool::multiply_avx2(const Product& p, int kind, int step) {
  if (kind == 4 && step == 32) with_zeros<kInt4, 32>(p);
  else if (kind == 4 && step == 64) with_zeros<kInt4, 64>(p);
  else if (kind == 4 && step == 128) with_zeros<kInt4, 128>(p);
  else if (kind == 8 && step == 32) with_zeros<kInt8, 32>(p);
  else if (kind == 8 && step == 64) with_zeros<kInt8, 64>(p);
  else if (kind == 8 && step == 128) with_zeros<kInt8, 128>(p);
  else if (kind == 44 && step == 64) product16<kBook, 64, false>(p);
  else if (kind == 88) product8(p);
  else if (kind == 16) product_wide<uint16_t>(p);
  else if (kind == 32) product_wide<float>(p);
  else return 1;
  return 0;
}
